"""A real worker process tells of its attempts; what it trains follows a script."""

import httpx
import pytest

from deploy.local.checks import claim_port
from services.worker.endings import Outcome
from services.worker.run_job import run_next
from tests.conftest import wait_until
from tests.promql import samples, selected, selectors
from tests.services.worker.test_lost_lease import place, take_away

__all__ = ["place"]
SECRET = "seen-by-prometheus"
SLOW = {"steps": 40, "step_seconds": 0.05}


@pytest.fixture
def told(workshop):
    """Start a worker; return how to ask it for one figure."""
    port = claim_port("127.0.0.1", 0)
    workshop.start_worker(TAILOR_METRICS_PORT=str(port), TAILOR_METRICS_SECRET=SECRET)
    client = httpx.Client(headers={"Authorization": f"Bearer {SECRET}"}, trust_env=False)

    def figure(query):
        text = client.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().text
        (selector,) = selectors(query)
        (sample,) = selected(selector, samples(text))
        return sample.value

    with client:
        wait_until(
            lambda: figure("tailor_leases_lost_total") == 0, "metrics", (httpx.ConnectError,)
        )
        yield figure


def test_a_worker_tells_the_speed_of_its_training_and_why_attempts_failed(workshop, told):
    speed = "tailor_training_tokens_per_second"
    killed = 'tailor_attempts_failed_total{cause="killed"}'
    job_id = workshop.add_job(script={"faults": {"1": {"at": 3, "do": "sigkill"}}} | SLOW)
    assert told(speed) == told(killed) == 0
    workshop.ring()
    wait_until(lambda: told(speed) == 1, "the script's speed")
    workshop.wait_for_end(job_id)
    assert told(killed) == 1
    assert told('tailor_attempts_failed_total{cause="crash"}') == 0
    wait_until(lambda: told(speed) == 0, "no speed after the training")


def test_a_lease_that_was_lost_is_counted(workshop, place):
    job_id = workshop.add_job(script={"steps": 20})
    place.trainer.meanwhile = lambda: take_away(workshop, job_id)
    assert run_next(place, "default") is Outcome.LOST
    assert place.metrics.registry.get_sample_value("tailor_leases_lost_total") == 1
