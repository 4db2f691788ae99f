"""The worker's small policies: deafness, the feed, the served check, model names."""

import subprocess
import sys
from typing import Any

import pytest

from services.worker.failures import AttemptFailed, Cause
from services.worker.feed import as_openai_metrics, remarks, step_event, worth_an_event
from services.worker.publish import await_served, model_name
from services.worker.run_job import pass_on
from services.worker.served_check import (
    Inference,
    InferenceAway,
    Refused,
    ServedDiffers,
    check_served,
)
from services.worker.spec import PreparingMessage, ProgressMessage, StartedMessage, StepMetrics
from services.worker.watchdog import EXIT_CODE, Deafness
from shared.db.tables import FineTuningJob, Tenant
from tests.services.worker.inference_server import SECRET
from tests.services.worker.scripted_trainer import CHECKS

ADAPTER = "ad_01JD0000000000000ABCDEFGHJ"


@pytest.mark.parametrize(
    ("looks", "deaf"),
    [
        ([(0, True, 1, 2), (10, True, 1, 2), (60, True, 1, 2)], True),
        ([(0, True, 1, 2), (10, True, 1, 2), (59, True, 1, 2)], False),
        ([(0, True, 1, 2), (30, True, 2, 2), (61, True, 2, 2)], False),
        ([(0, True, 1, 2), (30, False, 1, 2), (61, True, 1, 2)], False),
        ([(0, True, 1, 2), (30, True, 1, 0), (61, True, 1, 2)], False),
        ([(0, True, 1, 2), (30, True, 1, None), (61, True, 1, 2)], False),
    ],
    ids=["deaf", "not yet", "heard one", "was busy", "nothing waited", "Redis was away"],
)
def test_a_worker_is_deaf_only_after_a_whole_window_of_unheard_rings(looks, deaf):
    deafness, found = Deafness(60), False
    deafness.found(-1, idle=True, heard=1, waiting=0)
    for now, idle, heard, waiting in looks:
        found = deafness.found(now, idle=idle, heard=heard, waiting=waiting)
    assert found == deaf


def progress(step, total, valid=None):
    return ProgressMessage(
        metrics=StepMetrics(
            step=step, epoch=1, train_loss=0.5, train_accuracy=0.9, valid_loss=valid
        ),
        total_steps=total,
        tokens_per_second=1,
        seconds_left=1,
    )


@pytest.mark.parametrize(
    ("total", "told"), [(1, 1), (20, 20), (500, 500), (501, 252), (12_345, 495), (100_000, 501)]
)
def test_a_job_has_at_most_about_500_metrics_events_and_always_first_and_last(total, told):
    kept = [step for step in range(1, total + 1) if worth_an_event(progress(step, total))]
    assert len(kept) == told
    assert {kept[0], kept[-1]} == {1, total}


def test_an_evaluated_step_is_always_told():
    assert worth_an_event(progress(7, 100_000, valid=0.4))


def test_the_feed_speaks_openais_words():
    event = step_event(progress(3, 9, valid=0.25))
    assert event.message == "Step 3/9: training loss=0.5000, validation loss=0.2500"
    assert event.data == {
        "step": 3,
        "total_steps": 9,
        "train_loss": 0.5,
        "train_mean_token_accuracy": 0.9,
        "valid_loss": 0.25,
        "full_valid_loss": 0.25,
    }
    assert "valid_loss" not in as_openai_metrics(progress(3, 9).metrics)


def test_long_work_is_told_beside_the_last_step_until_the_next():
    lease: Any = Listener()
    pass_on(PreparingMessage(phase="reading", done=3, total=9), lease)
    assert lease.told == {"step": 0, "phase": "reading", "done": 3, "total": 9}
    pass_on(progress(3, 9), lease)
    before = lease.told
    pass_on(PreparingMessage(phase="evaluating", done=1, total=2, step=3), lease)
    assert lease.told == before | {"phase": "evaluating", "done": 1, "total": 2}
    pass_on(progress(4, 9), lease)
    assert "phase" not in lease.told


class Listener:
    """A lease without a database."""

    told: dict[str, object] = {}  # noqa: RUF012  replaced, never changed

    def progress(self, progress):
        self.told = progress

    def event(self, event):
        """Take it; these tests look at the progress."""


def test_a_fresh_start_and_other_conditions_are_remarked_upon():
    numbers = {"total_steps": 9, "steps_per_epoch": 3, "train_rows": 9, "validation_rows": 1}
    assert remarks(StartedMessage(step=0, **numbers)) == []
    fresh = StartedMessage(step=0, fresh_because="The checkpoint of step 4 was lost", **numbers)
    assert remarks(fresh) == ["The checkpoint of step 4 was lost; training starts anew"]
    other = StartedMessage(step=4, differs="threads 4 instead of 2", **numbers)
    assert remarks(other) == [
        "This attempt has threads 4 instead of 2; results may differ in the last bits"
    ]


@pytest.mark.parametrize(
    ("tenant", "suffix", "expected"),
    [
        ("acme-co", None, "ft:b:acme-co::abcdefgh"),
        ("acme-co", "door-v1.2", "ft:b:acme-co:door-v1.2:abcdefgh"),
        ("日本の会社", "door", "ft:b:org-1:door:abcdefgh"),
        ("a/b", None, "ft:b:org-1::abcdefgh"),
    ],
)
def test_a_models_name_fits_into_a_url_and_names_the_company_where_it_can(tenant, suffix, expected):
    job = FineTuningJob(base_model="b", suffix=suffix)
    name = model_name(job, Tenant(id="org-1", name=tenant), "ad_01JD0000000000000ABCDEFGH")
    assert name == expected


def served(inference, secret=SECRET):
    return check_served(Inference(inference.url, secret), ADAPTER, CHECKS, 0.15)


def test_an_adapter_that_answers_as_trained_passes_with_its_distances(inference):
    inference.logprobs = (-0.15, -0.2)
    assert served(inference)["served_to_trained"] == pytest.approx(0.026, abs=0.001)


@pytest.mark.parametrize("logprobs", [(-3.0, -4.0), (-0.5, -0.6), (float("nan"), -0.2)])
def test_one_that_answers_otherwise_does_not(inference, logprobs):
    inference.logprobs = logprobs
    with pytest.raises(ServedDiffers):
        served(inference)


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_service_that_is_starting_is_away(inference, status):
    inference.status = status
    with pytest.raises(InferenceAway):
        served(inference)


def test_no_service_and_a_refused_secret_are_away(inference):
    with pytest.raises(InferenceAway):
        served(inference, secret="another")
    inference.close()
    with pytest.raises(InferenceAway):
        served(inference)


def test_a_refusal_counts_only_from_a_service_that_calls_itself_ready(inference):
    inference.status = 400
    with pytest.raises(Refused, match="400"):
        served(inference)
    inference.ready = False
    with pytest.raises(InferenceAway) as away:
        served(inference)
    assert not isinstance(away.value, Refused)


@pytest.mark.parametrize(
    ("answers", "cause"),
    [
        ([Refused(), Refused(), Refused()], Cause.SERVED_DIFFERS),
        ([Refused(), Refused(), InferenceAway(), Refused(), {"served": 0}], None),
        ([Refused("", "adapter_refused")] * 3, Cause.ADAPTER_REFUSED),
        ([Refused("", "base_not_served")] * 3, Cause.BASE_NOT_SERVED),
        ([ServedDiffers()], Cause.SERVED_DIFFERS),
        ([InferenceAway()] * 11, Cause.INFERENCE_AWAY),
    ],
    ids=["refused", "while the engine ended", "by the guard", "its base", "differs", "away"],
)
def test_publication_believes_a_refusal_only_when_it_repeats(answers, cause):
    times = iter(range(20))

    def check():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask():
        return await_served(check, wait=lambda: None, deadline=10, clock=lambda: next(times))

    if cause is None:
        assert ask() == {"served": 0}
    else:
        with pytest.raises(AttemptFailed) as failure:
            ask()
        assert failure.value.cause == cause
    assert answers == []


def test_a_proxy_of_the_environment_is_not_asked(inference, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert served(inference)


def test_the_watchdog_ends_a_process_that_does_not_hear_the_rings(broker):
    """The process has the application and the watchdog, but nothing that consumes."""
    code = (
        "import sys, time; from shared.task_queue import make_celery, ring;"
        "from services.worker.watchdog import watch;"
        "app = make_celery(sys.argv[1]); ring(app); watch(app, 'default', 0.3); time.sleep(30)"
    )
    done = subprocess.run([sys.executable, "-c", code, broker.url], check=False, timeout=25)
    assert done.returncode == EXIT_CODE
