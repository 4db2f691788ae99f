"""The scheduler's duties on real PostgreSQL, Valkey and files; each is run by hand, once."""

import os
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from services.scheduler.erase import EraseAdapters, EraseAttempts, EraseFiles, Eviction
from services.scheduler.rering import Rering, rings_due
from services.scheduler.sweep import Duty, sweep
from shared.clock import now
from shared.db import transaction
from shared.db.tables import Adapter, StoredFile
from shared.ids import new_id
from shared.jobs.state import State
from shared.task_queue import Outstanding, outstanding
from tests.services.worker.inference_server import SECRET
from tests.services.worker.workshop import BASE

LONG_AGO = now() - timedelta(minutes=5)
DAY = 24 * 3600
EXAMPLES: dict[str, list[Any]] = {"first_batch": []}


@pytest.mark.parametrize(
    ("overdue", "waiting", "in_hand", "due"),
    [(0, 0, 0, 0), (3, 0, 0, 3), (3, 1, 1, 1), (3, 5, 0, 0), (500, 0, 0, 100), (500, 99, 0, 1)],
)
def test_rings_never_exceed_the_jobs_that_need_them(overdue, waiting, in_hand, due):
    assert rings_due(overdue, Outstanding(waiting, in_hand)) == due


def test_it_rings_once_for_each_overdue_job_and_not_again_while_the_rings_wait(workshop):
    for _ in range(3):
        workshop.add_job(state_changed_at=LONG_AGO)
    workshop.add_job()  # just queued
    workshop.add_job(state_changed_at=LONG_AGO, not_before=now() + timedelta(minutes=1))
    duty = Rering(workshop.engine, workshop.app, 10, lambda: [BASE])
    duty.run()
    duty.run()
    assert outstanding(workshop.app, "default").waiting == 3


def test_the_rings_that_a_killed_worker_left_unacknowledged_do_not_silence_it(workshop):
    workshop.add_job(state_changed_at=LONG_AGO)
    with workshop.app.connection_for_write() as connection:
        channel = connection.default_channel
        stale = {f"tag-{number}": time.time() - 60 for number in range(5)}
        channel.client.zadd(channel.unacked_index_key, stale)
    Rering(workshop.engine, workshop.app, 10, lambda: [BASE]).run()
    assert outstanding(workshop.app, "default").waiting == 1


def test_a_dead_broker_fails_the_duty_and_not_the_sweep(workshop, broker):
    workshop.add_job(state_changed_at=LONG_AGO)
    broker.process.kill()
    broker.process.wait()
    duties: list[Duty] = [
        Rering(workshop.engine, workshop.app, 10, lambda: [BASE]),
        erase_attempts(workshop),
    ]
    assert sweep(duties) == ["rering"]


def set_file(workshop, job_id, **values):
    with transaction(workshop.engine) as session:
        session.execute(
            update(StoredFile)
            .where(StoredFile.id == workshop.job(job_id).training_file_id)
            .values(**values)
        )


def add_adapter(workshop, **columns):
    adapter_id = new_id("ad_")
    folder = workshop.store.adapter(adapter_id)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    values = {
        "id": adapter_id,
        "tenant_id": workshop.add_tenant(),
        "kind": "import",
        "model": f"ft:{adapter_id}",
        "step": 1,
        "base_model": "b",
        "base_sha256": "0",
        "metrics": {},
    }
    with transaction(workshop.engine) as session:
        session.add(Adapter(**values | columns))
    return adapter_id


def make_old(path):
    os.utime(path, (time.time() - 2 * DAY,) * 2)


def file_of(workshop, job_id):
    with transaction(workshop.engine) as session:
        return session.get_one(StoredFile, workshop.job(job_id).training_file_id)


def erase_files(workshop, batch=10):
    return EraseFiles(workshop.engine, workshop.store, DAY, batch)


def erase_attempts(workshop, keep_seconds=0):
    return EraseAttempts(workshop.engine, workshop.store, keep_seconds, DAY, batch=10)


def erase_adapters(workshop):
    evict = Eviction(workshop.engine, SECRET)
    return EraseAdapters(workshop.engine, workshop.store, evict, DAY, batch=10)


def test_a_deleted_adapter_is_let_go_by_inference_before_its_files_go(workshop):
    kept, deleted = add_adapter(workshop), add_adapter(workshop, deleted_at=LONG_AGO)
    workshop.inference.status = 503
    erase_adapters(workshop).run()
    assert workshop.store.adapter(deleted).exists()
    with transaction(workshop.engine) as session:
        assert session.get_one(Adapter, deleted).erased_at is None
    workshop.inference.status = 200
    erase_adapters(workshop).run()
    assert workshop.inference.evicted == [deleted]
    assert not workshop.store.adapter(deleted).exists()
    assert workshop.store.adapter(kept).exists()
    with transaction(workshop.engine) as session:
        assert session.get_one(Adapter, deleted).erased_at is not None
        assert session.get_one(Adapter, kept).erased_at is None


def test_an_adapter_folder_without_a_row_goes_after_a_day(workshop):
    old, young = new_id("ad_"), new_id("ad_")
    half = workshop.store.adapters() / f".tmp-{old}-1"
    for folder in (workshop.store.adapter(old), workshop.store.adapter(young), half):
        folder.mkdir(parents=True)
    make_old(workshop.store.adapter(old))
    make_old(half)
    owned = add_adapter(workshop)
    make_old(workshop.store.adapter(owned))
    erase_adapters(workshop).run()
    assert {path.name for path in workshop.store.adapters().iterdir()} == {young, owned}
    assert old in workshop.inference.evicted


def test_a_deleted_file_goes_once_no_unfinished_job_needs_it_and_what_was_kept_of_it(workshop):
    running = workshop.add_job(state=State.RUNNING, attempt=1, examples=EXAMPLES)
    ended = workshop.add_job(state=State.SUCCEEDED, examples=EXAMPLES)
    for job_id in (running, ended):
        set_file(workshop, job_id, deleted_at=now())
    erase_files(workshop).run()
    uploads = {path.name for path in (workshop.store.root / "uploads").iterdir()}
    assert uploads == {workshop.job(running).training_file_id}
    assert [workshop.examples(job_id) for job_id in (running, ended)] == [EXAMPLES, None]
    assert [file_of(workshop, job_id).erased_at is None for job_id in (running, ended)] == [
        True,
        False,
    ]


def test_an_expired_file_goes_once_no_unfinished_job_needs_it(workshop):
    running = workshop.add_job(state=State.RUNNING, attempt=1)
    ended = workshop.add_job(state=State.SUCCEEDED)
    unexpired = workshop.add_job(state=State.SUCCEEDED)
    for job_id in (running, ended):
        set_file(workshop, job_id, expires_at=LONG_AGO)
    set_file(workshop, unexpired, expires_at=now() + timedelta(hours=1))
    erase_files(workshop).run()
    uploads = {path.name for path in (workshop.store.root / "uploads").iterdir()}
    assert uploads == {file_of(workshop, job_id).id for job_id in (running, unexpired)}
    assert file_of(workshop, ended).erased_at is not None


def test_files_are_erased_some_at_a_time(workshop):
    for _ in range(3):
        set_file(workshop, workshop.add_job(state=State.SUCCEEDED), deleted_at=now())
    duty = erase_files(workshop, batch=2)
    left = []
    for _ in range(3):
        duty.run()
        left.append(len(list((workshop.store.root / "uploads").iterdir())))
    assert left == [1, 0, 0]


def test_an_upload_folder_without_a_row_goes_after_a_day(workshop):
    owned = file_of(workshop, workshop.add_job(state=State.SUCCEEDED)).id
    for name in ("file-old", "file-young"):
        workshop.store.upload(name).mkdir()
    for name in (owned, "file-old"):
        make_old(workshop.store.upload(name))
    erase_files(workshop).run()
    uploads = {path.name for path in (workshop.store.root / "uploads").iterdir()}
    assert uploads == {owned, "file-young"}


def test_attempts_are_kept_until_their_job_has_ended(workshop):
    running = workshop.add_job(state=State.RUNNING, attempt=1)
    ended = workshop.add_job(state=State.CANCELLED, attempt=1, finished_at=LONG_AGO)
    for job_id in (running, ended):
        workshop.store.attempt(job_id, 1).mkdir(parents=True)
    erase_attempts(workshop, keep_seconds=30).run()
    assert workshop.store.job_attempts(running).exists()
    assert not workshop.store.job_attempts(ended).exists()


def test_the_attempts_of_a_job_without_a_row_go_after_a_day(workshop):
    waiting = workshop.add_job(state=State.PAUSED, attempt=1)
    old, young = new_id("ftjob-"), new_id("ftjob-")
    for name in (waiting, old, young, "lost+found"):
        workshop.store.attempt(name, 1).mkdir(parents=True)
        if name != young:
            make_old(workshop.store.job_attempts(name))
    erase_attempts(workshop).run()
    left = {path.name for path in (workshop.store.root / "attempts").iterdir()}
    assert left == {waiting, young, "lost+found"}
