"""Requests to end the job early, set by the thread that reads stdin and polled by the loop."""

from threading import Event


class Interrupted(Exception):
    """The job was asked to end; ``keep`` says whether to save a checkpoint first."""

    def __init__(self, keep: bool) -> None:
        super().__init__(keep)
        self.keep = keep


class Signals:
    """The two flags."""

    def __init__(self) -> None:
        self.stop = Event()
        self.abort = Event()

    def poll(self) -> None:
        """Raise Interrupted if a flag is set."""
        if self.abort.is_set():
            raise Interrupted(keep=False)
        if self.stop.is_set():
            raise Interrupted(keep=True)

    def clear(self) -> None:
        """Forget the flags; the next job is another one."""
        self.stop.clear()
        self.abort.clear()
