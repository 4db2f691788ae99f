"""What cannot be erased: it is not marked, is said, tried again, and stops nobody else."""

import logging
import os
import shutil
from pathlib import Path

import httpx
import pytest

from services.scheduler import remove as removing
from services.scheduler.erase import EraseAdapters, EraseAttempts, EraseFiles, Eviction
from services.scheduler.remove import AGAIN_SECONDS, SCANS
from shared.clock import now
from shared.db import transaction
from shared.db.tables import Adapter
from shared.ids import new_id
from shared.jobs.state import State
from tests.services.scheduler.test_duties import (
    DAY,
    LONG_AGO,
    add_adapter,
    file_of,
    make_old,
    set_file,
)
from tests.services.worker.inference_server import SECRET


class Clock:
    """Stands until it is moved."""

    def __init__(self):
        self.at = 1000.0

    def __call__(self):
        return self.at


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stubborn(monkeypatch):
    """Names of folders whose files the file system refuses to remove."""
    held: set[str] = set()
    unlink = os.unlink

    def refuse(path, *, dir_fd=None):
        folder = Path(f"/proc/self/fd/{dir_fd}").readlink() if dir_fd is not None else Path(path)
        if held.intersection(folder.parts):
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    return held


@pytest.fixture
def let_go(workshop):
    """The real eviction, but some adapters are never let go."""
    evict = Eviction(workshop.engine, SECRET)

    class LetGo:
        def __init__(self):
            self.held = set()

        def __call__(self, adapter_id):
            if adapter_id in self.held:
                raise httpx.ReadTimeout("it runs on and on")
            evict(adapter_id)

    return LetGo()


def duty(workshop, let_go, clock, batch=10):
    return EraseAdapters(workshop.engine, workshop.store, let_go, DAY, batch, clock=clock)


def erased(workshop, adapter_id):
    with transaction(workshop.engine) as session:
        return session.get_one(Adapter, adapter_id).erased_at is not None


def test_an_adapter_whose_files_remain_is_not_marked_and_is_tried_again(
    workshop, let_go, clock, stubborn, caplog
):
    adapter_id = add_adapter(workshop, deleted_at=LONG_AGO)
    stubborn.add(adapter_id)
    erase = duty(workshop, let_go, clock)
    with caplog.at_level(logging.WARNING, logger=removing.__name__):
        erase.run()
    assert workshop.store.adapter(adapter_id).exists()
    assert not erased(workshop, adapter_id)
    [record] = caplog.records
    assert record.data["id"] == adapter_id
    assert "PermissionError" in record.data["reason"]
    stubborn.clear()
    erase.run()
    assert not erased(workshop, adapter_id)  # not yet: others come first
    clock.at += AGAIN_SECONDS
    erase.run()
    assert not workshop.store.adapter(adapter_id).exists()
    assert erased(workshop, adapter_id)


def test_as_much_as_can_be_removed_is_removed(workshop, let_go, clock, stubborn):
    adapter_id = add_adapter(workshop, deleted_at=LONG_AGO)
    part = workshop.store.adapter(adapter_id) / "held"
    part.mkdir()
    (part / "a").touch()
    stubborn.add("held")
    duty(workshop, let_go, clock).run()
    assert [path.name for path in workshop.store.adapter(adapter_id).iterdir()] == ["held"]


def test_adapters_that_cannot_be_let_go_do_not_stand_before_the_others(workshop, let_go, clock):
    held = [add_adapter(workshop, deleted_at=LONG_AGO) for _ in range(2)]
    later = [add_adapter(workshop, deleted_at=now()) for _ in range(2)]
    let_go.held.update(held)
    erase = duty(workshop, let_go, clock, batch=2)
    erase.run()  # the two stuck ones fill the batch
    erase.run()
    assert [erased(workshop, one) for one in (*held, *later)] == [False, False, True, True]
    assert not any(workshop.store.adapter(one).exists() for one in later)
    assert all(workshop.store.adapter(one).exists() for one in held)


def test_a_file_that_remains_is_not_marked_and_stops_no_other(workshop, clock, stubborn):
    stuck, free = (workshop.add_job(state=State.SUCCEEDED) for _ in range(2))
    for job_id in (stuck, free):
        set_file(workshop, job_id, deleted_at=now())
    stubborn.add(file_of(workshop, stuck).id)
    EraseFiles(workshop.engine, workshop.store, DAY, 10, clock=clock).run()
    assert file_of(workshop, stuck).erased_at is None
    assert file_of(workshop, free).erased_at is not None


def test_attempts_that_remain_stop_no_others(workshop, clock, stubborn):
    jobs = [
        workshop.add_job(state=State.CANCELLED, attempt=1, finished_at=LONG_AGO) for _ in range(3)
    ]
    for job_id in jobs:
        workshop.store.attempt(job_id, 1).mkdir(parents=True)
        (workshop.store.attempt(job_id, 1) / "state").touch()
    stubborn.add(jobs[0])
    EraseAttempts(workshop.engine, workshop.store, 30, DAY, 10, clock=clock).run()
    left = [job_id for job_id in jobs if workshop.store.job_attempts(job_id).exists()]
    assert left == jobs[:1]


def test_the_attempts_of_a_paused_job_are_kept(workshop, clock):
    job_id = workshop.add_job(state=State.PAUSED, attempt=1)
    workshop.store.attempt(job_id, 1).mkdir(parents=True)
    EraseAttempts(workshop.engine, workshop.store, 0, DAY, 10, clock=clock).run()
    assert workshop.store.attempt(job_id, 1).exists()


def test_the_store_is_searched_for_orphans_at_start_and_then_rarely(workshop, let_go, clock):
    erase = duty(workshop, let_go, clock, batch=2)
    erase.run()
    orphans = [new_id("ad_") for _ in range(3)]
    for adapter_id in orphans:
        workshop.store.adapter(adapter_id).mkdir(parents=True)
        make_old(workshop.store.adapter(adapter_id))

    def left():
        return sum(workshop.store.adapter(one).exists() for one in orphans)

    erase.run()
    clock.at += DAY / SCANS - 1
    erase.run()
    assert left() == 3
    clock.at += 1
    erase.run()
    assert left() == 1
    erase.run()  # the rest of what that search found
    assert left() == 0


def test_what_is_no_folder_is_removed_too_and_what_is_gone_is_no_error(tmp_path):
    (tmp_path / "body").touch()
    removing.remove(tmp_path / "body")
    removing.remove(tmp_path / "body")
    assert not list(tmp_path.iterdir())
    shutil.rmtree(tmp_path)
