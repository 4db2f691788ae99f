"""The second stage of validation: real PostgreSQL and broker, scripted or real checkers."""

import json
import os
import resource
import signal
import sys
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import update

from deploy.local.setup import MODELS
from services.scheduler.checker import COMMAND
from services.scheduler.settings import SchedulerSettings
from services.scheduler.validate import Fairness, Validation, Waiting
from shared.catalog import load_catalog
from shared.clock import now
from shared.db import transaction
from shared.db.tables import FineTuningJob, StoredFile
from shared.jobs.state import State
from shared.jobs.transitions import move
from shared.task_queue import outstanding
from tests.conftest import wait_until
from tests.services.worker.inference_server import SECRET
from tests.services.worker.workshop import kill_tree

SCRIPTED = (sys.executable, "-m", "tests.services.scheduler.scripted_checker")
EARLY = datetime(2026, 1, 1)  # noqa: DTZ001  compared with its like only


def settings_of(workshop, **changes):
    return SchedulerSettings(
        **{
            "system_database_url": SecretStr(workshop.database_url),
            "broker_url": SecretStr(workshop.broker_url),
            "inference_secret": SecretStr(SECRET),
            "store_dir": workshop.store.root,
            "models_dir": MODELS,
            "validation_poll_seconds": 0.02,
        }
        | changes
    )


@contextmanager
def validation(workshop, command=SCRIPTED, **changes):
    """Run the places of a scheduler; on leaving, all its threads and processes have ended."""
    stop = threading.Event()
    settings = settings_of(workshop, **changes)
    places = Validation(workshop.engine, workshop.app, load_catalog(), settings, command)
    threads = places.start(stop)
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def add_job(workshop, rows=None, **columns):
    """A new job with its file: ``rows`` normalised messages, ten good ones by default."""
    script = columns.pop("check", {})
    job_id = workshop.add_job(state=State.PAUSED, **columns)
    folder = folder_of(workshop, job_id)
    rows = rows if rows is not None else good_rows(10)
    write_rows(folder, rows)
    (folder / "check.json").write_text(json.dumps(script))
    set_file(workshop, job_id, report={"rows": len(rows)})
    with transaction(workshop.engine) as session:
        # Last: a scheduler may run already.
        session.get_one(FineTuningJob, job_id).state = State.VALIDATING
    return job_id


def good_rows(count):
    return [chat(f"製品{i}の保証期間は?", f"{i}年です。") for i in range(count)]


def chat(question, answer, weight=1):
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, "weight": weight},
    ]


def write_rows(folder: Path, rows):
    lines = [json.dumps({"line": n, "messages": m}) for n, m in enumerate(rows, 1)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")


def folder_of(workshop, job_id):
    return workshop.store.upload(workshop.job(job_id).training_file_id)


def set_file(workshop, job_id, **values):
    with transaction(workshop.engine) as session:
        session.execute(
            update(StoredFile)
            .where(StoredFile.id == workshop.job(job_id).training_file_id)
            .values(**values)
        )


def checks_of(workshop, job_id):
    """Process ids of the checks that were begun."""
    log = folder_of(workshop, job_id) / "checks"
    return [int(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def many_open_files():
    """More of them than ``select.select`` can tell apart."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(4096, before[1])), before[1]))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for file in opened:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_open_files")
def test_a_scheduler_with_many_open_files_hears_its_checkers(workshop):
    job_id = add_job(workshop)
    with validation(workshop):
        workshop.wait_for_state(job_id, State.QUEUED)


def test_a_checked_job_is_queued_rung_for_and_keeps_its_report(workshop):
    job_id = add_job(workshop)
    with validation(workshop):
        job = workshop.wait_for_state(job_id, State.QUEUED)
        wait_until(lambda: outstanding(workshop.app, "default").waiting == 1, "the ring")
    assert [event.message for event in workshop.events(job_id)] == [
        "Files validated, moving job to queued state"
    ]
    assert job.data_report["training_file"]["rows"] == 10
    with transaction(workshop.engine) as session:
        assert session.get_one(StoredFile, job.training_file_id).data_report is not None


def test_every_unusable_row_of_both_files_is_named_at_once(workshop):
    faulty = good_rows(12)
    faulty[2] = chat("長い?", "とても長い答え。" * 2000)
    faulty[7] = chat("重さは?", "学ばない。", weight=0)
    other = add_job(workshop, [*good_rows(3), chat("長い?", "とても長い答え。" * 2000)])
    job_id = add_job(workshop, faulty, validation_file_id=workshop.job(other).training_file_id)
    with validation(workshop, COMMAND):
        job = workshop.wait_for_state(job_id, State.FAILED)
    assert (job.error["code"], job.error["param"]) == ("invalid_training_file", "training_file")
    message = job.error["message"]
    assert message.startswith("The job failed due to an invalid training file. Line 3: ")
    assert "Line 8: " in message
    assert "invalid validation file. Line 4: " in message
    assert "とても" not in message + json.dumps(job.data_report, ensure_ascii=False)
    found = {(f["file"], f["kind"]): f["lines"] for f in job.data_report["findings"]}
    assert found["training_file", "too_long"] == [3]
    assert found["training_file", "no_answer"] == [8]
    assert found["validation_file", "too_long"] == [4]


def test_a_bad_validation_file_alone_fails_with_its_own_code_and_a_count(workshop):
    other = add_job(workshop, [chat("q?", "a", weight=0)] * 70)
    job_id = add_job(workshop, validation_file_id=workshop.job(other).training_file_id)
    with validation(workshop, COMMAND):
        job = workshop.wait_for_state(job_id, State.FAILED)
    assert (job.error["code"], job.error["param"]) == ("invalid_validation_file", "validation_file")
    assert job.error["message"].endswith("And 20 more.")


@pytest.mark.parametrize(
    ("file", "code", "words"),
    [
        ({"deleted_at": now()}, "invalid_training_file", "deleted"),
        ({"report": {"rows": 9}}, "invalid_n_examples", "9 example(s)"),
    ],
)
def test_what_the_file_itself_says_needs_no_check(workshop, file, code, words):
    job_id = add_job(workshop)
    set_file(workshop, job_id, **file)
    with validation(workshop):
        job = workshop.wait_for_state(job_id, State.FAILED)
    assert job.error["code"] == code
    assert words in job.error["message"]
    assert checks_of(workshop, job_id) == []


def test_a_check_that_crashes_is_begun_again(workshop):
    job_id = add_job(workshop, check={"crash": 2})
    with validation(workshop):
        workshop.wait_for_state(job_id, State.QUEUED)
    assert len(set(checks_of(workshop, job_id))) == 3


def test_a_check_that_always_crashes_fails_the_job_and_not_the_next_one(workshop):
    tenant = workshop.add_tenant()
    job_id = add_job(workshop, tenant=tenant, check={"crash": 99})
    following = add_job(workshop, tenant=tenant)
    with validation(workshop):
        job = workshop.wait_for_state(job_id, State.FAILED)
        workshop.wait_for_state(following, State.QUEUED)
    assert job.error["code"] == "validation_failed"
    assert "3 times" in job.error["message"]
    assert len(checks_of(workshop, job_id)) == 3


def test_a_check_that_takes_too_long_is_killed_and_counted(workshop):
    job_id = add_job(workshop, check={"hang": True})
    with validation(workshop, validation_seconds=0.3, validation_attempts=2):
        job = workshop.wait_for_state(job_id, State.FAILED)
    assert "took too long" in job.error["message"]
    assert not any(map(psutil.pid_exists, checks_of(workshop, job_id)))


def test_cancelling_a_job_kills_its_check(workshop):
    job_id = add_job(workshop, check={"hang": True})
    with validation(workshop):
        wait_until(lambda: checks_of(workshop, job_id), "the check begins")
        [process] = checks_of(workshop, job_id)
        with transaction(workshop.engine) as session:
            move(session, job_id, State.CANCELLED, "The job has been cancelled")
        wait_until(lambda: not psutil.pid_exists(process), "the check is gone")
        following = add_job(workshop)
        workshop.wait_for_state(following, State.QUEUED)
    assert workshop.states(job_id) == ["cancelled"]


def test_two_schedulers_move_a_job_once(workshop):
    jobs = [add_job(workshop) for _ in range(6)]
    with validation(workshop), validation(workshop):
        for job_id in jobs:
            workshop.wait_for_state(job_id, State.QUEUED)
    assert [workshop.states(job_id) for job_id in jobs] == [["queued"]] * 6


def test_fifty_large_jobs_of_one_company_do_not_hold_up_another(workshop):
    many = workshop.add_tenant()
    held = [add_job(workshop, tenant=many, check={"hang": True}) for _ in range(50)]
    with validation(workshop):
        wait_until(lambda: any(checks_of(workshop, job) for job in held), "one is being checked")
        small = add_job(workshop)
        workshop.wait_for_state(small, State.QUEUED, seconds=5)
        assert sum(len(checks_of(workshop, job)) for job in held) == 1


def test_a_killed_scheduler_takes_its_small_checker_along_and_the_next_begins_again(
    workshop,
):
    models = {"TAILOR_MODELS_DIR": str(MODELS)}
    job_id = add_job(workshop, good_rows(12_000))
    first = workshop.start_scheduler(**models)
    wait_until(lambda: psutil.Process(first.pid).children(), "its checker")
    checkers = psutil.Process(first.pid).children()
    wait_until(lambda: checkers[0].nice() >= 10, "it has made itself small")
    assert not [name for name in checkers[0].environ() if name.startswith("TAILOR_")]
    assert checkers[0].rlimit(psutil.RLIMIT_DATA)[0] == 1500 * 2**20
    os.kill(first.pid, signal.SIGKILL)
    first.wait(10)
    wait_until(lambda: not any(map(alive, checkers)), "its checkers are gone")
    assert workshop.job(job_id).state == State.VALIDATING
    with transaction(workshop.engine) as session:
        session.execute(update(FineTuningJob).values(created_at=now() - timedelta(minutes=1)))
    write_rows(folder_of(workshop, job_id), good_rows(12))
    second = workshop.start_scheduler(**models)
    workshop.wait_for_state(job_id, State.QUEUED, seconds=60)
    kill_tree(second.pid)


def alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def waiting(*jobs):
    return [Waiting(name, name[0], EARLY + timedelta(seconds=age)) for age, name in enumerate(jobs)]


def test_the_turn_goes_round_the_tenants_whoever_came_first():
    fairness, order = Fairness(places=1), []
    jobs = waiting("a1", "a2", "a3", "b1", "c1")
    while (job := fairness.choose(jobs)) is not None:
        order.append(job.job_id)
        fairness.release(job)
        jobs.remove(job)
    assert order == ["a1", "b1", "c1", "a2", "a3"]


def test_a_tenant_never_takes_the_last_of_several_places():
    fairness = Fairness(places=3)
    taken = [fairness.choose(waiting("a1", "a2", "a3")) for _ in range(3)]
    assert [job and job.job_id for job in taken] == ["a1", "a2", None]
    assert (last := fairness.choose(waiting("a3", "b1")))
    assert last.job_id == "b1"
