"""vLLM's scheduler, with a step of its own for who has just come.

A step computes one token of every running answer and the beginnings of new ones together, so a
newcomer would wait for the step that runs, which nothing can interrupt, and then for a second one
that is as long. Instead, a short request of a tenant that has nothing else here begins in a step of
its own; everybody else pauses for that one short step. It never happens twice in a row.
"""

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.request_queue import RequestQueue, create_request_queue
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

NEWCOMER = 0
"""The guard's priority for one short answer of a tenant that has nothing else at the engine."""


class NewcomersFirst(Scheduler):  # type: ignore[misc]  # vLLM is not typed for us
    """One step for newcomers between two steps for all."""

    running: list[Request]
    waiting: RequestQueue
    _paused = False
    """Whether the last step was one for newcomers only."""

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """Return what is computed next."""
        newcomers = [request for request in self.waiting if request.priority == NEWCOMER]
        fits = len(self.running) + len(newcomers) <= self.max_num_running_reqs
        self._paused = bool(newcomers and self.running and fits and not self._paused)
        if not self._paused:
            return super().schedule(throttle_prefills)
        running, waiting = self.running, self.waiting
        waiting.remove_requests(newcomers)
        self.running, self.waiting = [], create_request_queue(self.policy)
        for request in newcomers:
            self.waiting.add_request(request)
        try:
            return super().schedule(throttle_prefills)
        finally:
            waiting.prepend_requests(self.waiting)
            self.running, self.waiting = [*running, *self.running], waiting
