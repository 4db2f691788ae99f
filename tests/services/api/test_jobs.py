"""Fine-tuning jobs over HTTP, mostly through the official client."""

import socket
import time
from typing import Any

import openai
import pytest
import redis

from services.api.jobs.service import NOT_STARTED
from shared.catalog import load_catalog
from shared.db import transaction
from shared.files.models import StoredFile
from shared.jobs.hyperparameters import Requested, resolve
from shared.jobs.models import FineTuningJob
from shared.jobs.state import TERMINAL, State
from shared.jobs.transitions import move
from shared.task_queue import RING_TIMEOUT_SECONDS
from tests.conftest import Broker, Database, wait_until
from tests.services.api.conftest import BASE, Api, Tenant, Upstream, running_api, training_rows


def advance(api: Api, job_id: str, *states: State) -> None:
    """Move a job as worker or scheduler would."""
    with transaction(api.system) as session:
        for state in states:
            move(session, job_id, state, f"now {state}")


def test_a_created_job_validates_its_files_and_has_numbers_and_its_first_events(
    tenant: Tenant,
) -> None:
    client = tenant.openai.fine_tuning.jobs
    training_file = tenant.upload(training_rows(64))
    job = client.create(model=BASE, training_file=training_file, suffix="my-shop")
    assert (job.status, job.model, job.to_dict()["user_provided_suffix"]) == (
        "validating_files",
        BASE,
        "my-shop",
    )
    assert (job.organization_id, job.error, job.fine_tuned_model) == (tenant.id, None, None)
    numbers = resolve(Requested(), 64, load_catalog().get(BASE))
    assert job.hyperparameters.batch_size == numbers.batch_size
    assert job.hyperparameters.n_epochs == numbers.n_epochs
    assert job.method is not None
    assert job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.n_epochs == numbers.n_epochs
    assert 0 <= job.seed < 2**31
    messages = [event.message for event in client.list_events(job.id)]
    assert messages[::-1] == [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {training_file}",
    ]
    assert client.retrieve(job.id) == job


def test_everything_asked_for_is_kept(tenant: Tenant) -> None:
    validation = tenant.upload(training_rows(3))
    job = tenant.openai.fine_tuning.jobs.create(
        model=BASE,
        training_file=tenant.upload(training_rows(12)),
        validation_file=validation,
        seed=42,
        metadata={"部署": "営業"},
        method={
            "type": "supervised",
            "supervised": {
                "hyperparameters": {
                    "n_epochs": 3,
                    "batch_size": 4,
                    "learning_rate_multiplier": 0.5,
                }
            },
        },
        extra_body={"x_lora": {"rank": 8}, "x_forgetting_budget": 0.1},
    )
    assert (job.validation_file, job.seed, job.metadata) == (validation, 42, {"部署": "営業"})
    assert job.hyperparameters.model_dump() == {
        "n_epochs": 3,
        "batch_size": 4,
        "learning_rate_multiplier": 0.5,
        "learning_rate": load_catalog().get(BASE).defaults.learning_rate / 2,
        "rank": 8,
        "alpha": 16,
        "training_share": 1.0,
        "forgetting_budget": 0.1,
        "held_out": 0,
    }


def test_a_job_and_its_file_show_the_data_report_of_the_check(api: Api, tenant: Tenant) -> None:
    job = tenant.create_job()
    assert job["data_report"] is None
    report = {"training_file": {"rows": 12}, "findings": []}
    with transaction(api.system) as session:
        session.get_one(FineTuningJob, job["id"]).data_report = report
        session.get_one(StoredFile, job["training_file"]).data_report = report
    for path in (f"fine_tuning/jobs/{job['id']}", f"files/{job['training_file']}"):
        assert tenant.http.get(f"/v1/{path}").json()["data_report"] == report


def test_what_a_job_keeps_of_its_rows_is_shown_apart_from_it(api: Api, tenant: Tenant) -> None:
    job = tenant.create_job()
    shown = tenant.http.get(f"/v1/fine_tuning/jobs/{job['id']}/examples").json()
    nothing: dict[str, list[Any]] = {"best": [], "worst": [], "random": []}
    assert shown == {"object": "fine_tuning.job.examples", "first_batch": [], "answers": nothing}
    spans = [{"text": "営業時間は?", "learnt": False}, {"text": "9時", "learnt": True}]
    answer = {"line": 5, "question": "店は?", "expected": "9時", "answer": "8時", "score": 0.5}
    kept = {
        "first_batch": [{"line": 3, "tokens": 9, "spans": spans}],
        "answers": nothing | {"worst": [answer]},
    }
    with transaction(api.system) as session:
        session.get_one(FineTuningJob, job["id"]).examples = kept
    shown = tenant.http.get(f"/v1/fine_tuning/jobs/{job['id']}/examples").json()
    assert shown == kept | {"object": "fine_tuning.job.examples"}
    assert "営業" not in tenant.http.get(f"/v1/fine_tuning/jobs/{job['id']}").text


@pytest.mark.parametrize(
    ("asked", "status", "param", "code"),
    [
        ({"model": "gpt-4o"}, 404, "model", "model_not_found"),
        ({"training_file": "file-missing"}, 404, "training_file", "file_not_found"),
        ({"training_file": "file-\x00"}, 400, None, None),
        ({"validation_file": "file-missing"}, 404, "validation_file", "file_not_found"),
        ({"suffix": "a/b"}, 400, "suffix", "invalid_value"),
        ({"suffix": "x" * 65}, 400, "suffix", "invalid_value"),
        ({"seed": -1}, 400, "seed", "invalid_value"),
        ({"seed": 2**31}, 400, "seed", "invalid_value"),
        ({"metadata": {str(i): "x" for i in range(17)}}, 400, "metadata", "invalid_value"),
        ({"metadata": {"k": "v" * 513}}, 400, "metadata.k", "invalid_value"),
        ({"metadata": {"k": "\x00"}}, 400, "metadata.k", "invalid_value"),
        ({"hyperparameters": {"n_epochs": 51}}, 400, "hyperparameters.n_epochs", "invalid_value"),
        ({"hyperparameters": {"n_epochs": "x"}}, 400, "hyperparameters.n_epochs", "invalid_value"),
        ({"hyperparameters": {"beta": 1}}, 400, "hyperparameters.beta", "unsupported_parameter"),
        ({"method": {"type": "dpo", "dpo": {}}}, 400, "method.type", "unsupported"),
        ({"integrations": [{"type": "wandb"}]}, 400, "integrations", "unsupported"),
        ({"n_epochs": 3}, 400, "n_epochs", "unsupported_parameter"),
        ({"x_forgetting_budget": 0}, 400, "x_forgetting_budget", "invalid_value"),
        ({"x_training_share": 0}, 400, "x_training_share", "invalid_value"),
        ({"x_training_share": 1.5}, 400, "x_training_share", "invalid_value"),
        ({"x_compare": {"arms": ["tuned"]}}, 400, "arms", None),
        ({"x_compare": {"job": "x"}}, 400, "x_compare.job", "unsupported_parameter"),
        ({"x_lora": {"rank": 32}}, 400, "x_lora.rank", None),
        ({"x_lora": {"layers": [29]}}, 400, "x_lora.layers", "unsupported_parameter"),
        ({"x_lora": {"modules": ["q_proj"]}}, 400, "x_lora.modules", "unsupported_parameter"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(
    tenant: Tenant, asked: dict[str, Any], status: int, param: str | None, code: str | None
) -> None:
    whole = {"model": BASE, "training_file": tenant.upload(training_rows(12))} | asked
    answer = tenant.http.post("/v1/fine_tuning/jobs", json=whole)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert tenant.openai.fine_tuning.jobs.list().data == []


def test_what_is_outside_the_profile_is_refused_with_the_profile(tenant: Tenant) -> None:
    file_id = tenant.upload(training_rows(12))
    with pytest.raises(openai.BadRequestError, match=r"layers 20 to 29, .* rank at most 16"):
        tenant.openai.fine_tuning.jobs.create(
            model=BASE, training_file=file_id, extra_body={"x_lora": {"rank": 64}}
        )


def test_a_missing_parameter_and_broken_json_are_400s(tenant: Tenant) -> None:
    answer = tenant.http.post("/v1/fine_tuning/jobs", json={"model": BASE})
    assert answer.json()["error"]["code"] == "missing_required_parameter"
    assert answer.json()["error"]["param"] == "training_file"
    headers = {"content-type": "application/json"}
    for body in (b"{", b"[]", b"null", b"\xff", b'{"model": NaN}'):
        answer = tenant.http.post("/v1/fine_tuning/jobs", content=body, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_only_training_files_can_be_trained_on(tenant: Tenant) -> None:
    other = tenant.upload(training_rows(12), purpose="assistants")
    with pytest.raises(openai.BadRequestError) as caught:
        tenant.openai.fine_tuning.jobs.create(model=BASE, training_file=other)
    assert (caught.value.param, caught.value.code) == ("training_file", "invalid_training_file")


def test_jobs_are_listed_newest_first_across_pages(tenant: Tenant) -> None:
    ids = [tenant.create_job()["id"] for _ in range(3)]
    assert [job.id for job in tenant.openai.fine_tuning.jobs.list(limit=2)] == ids[::-1]
    events = list(tenant.openai.fine_tuning.jobs.list_events(ids[0], limit=1))
    assert len(events) == 2
    assert len({event.id for event in events}) == 2


def test_jobs_are_filtered_by_metadata(tenant: Tenant) -> None:
    staging = tenant.create_job(metadata={"env": "staging", "部署": "営業"})["id"]
    plain = tenant.create_job()["id"]
    jobs = tenant.openai.fine_tuning.jobs
    assert [job.id for job in jobs.list(metadata={"env": "staging"})] == [staging]
    assert [job.id for job in jobs.list(metadata={"部署": "営業", "env": "staging"})] == [staging]
    assert jobs.list(metadata={"env": "production"}).data == []
    without = tenant.http.get("/v1/fine_tuning/jobs?metadata=null").json()["data"]
    assert [job["id"] for job in without] == [plain]


@pytest.mark.parametrize("state", sorted(NOT_STARTED - {State.PAUSED}))
def test_a_waiting_job_is_cancelled_at_once(api: Api, tenant: Tenant, state: State) -> None:
    job = tenant.create_job()
    if state == State.QUEUED:
        api.validated(job["id"])
    cancelled = tenant.openai.fine_tuning.jobs.cancel(job["id"])
    assert cancelled.status == "cancelled", state
    assert cancelled.finished_at is not None
    assert cancelled.to_dict()["cancel_requested"] is True


@pytest.mark.parametrize(
    "path",
    [
        [State.STARTING],
        [State.STARTING, State.RUNNING],
        [State.STARTING, State.RUNNING, State.PUBLISHING],
    ],
)
def test_a_running_jobs_worker_is_asked_to_end_it(
    api: Api, tenant: Tenant, path: list[State]
) -> None:
    job = tenant.create_job()
    advance(api, job["id"], State.QUEUED, *path)
    for _ in range(2):
        answer = tenant.http.post(f"/v1/fine_tuning/jobs/{job['id']}/cancel").json()
        assert (answer["status"], answer["cancel_requested"]) == ("running", True)
    with transaction(api.system) as session:
        row = session.get_one(FineTuningJob, job["id"])
        assert row.state == State.CANCELLING


@pytest.mark.parametrize("end", sorted(TERMINAL))
def test_an_ended_job_cannot_be_cancelled(api: Api, tenant: Tenant, end: State) -> None:
    job = tenant.create_job()
    way = {State.CANCELLED: [], State.FAILED: []}.get(
        end, [State.QUEUED, State.STARTING, State.RUNNING, State.PUBLISHING]
    )
    advance(api, job["id"], *way, end)
    with pytest.raises(openai.ConflictError) as caught:
        tenant.openai.fine_tuning.jobs.cancel(job["id"])
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.code == "job_already_ended"


def test_a_paused_job_is_resumed_and_nobody_elses(api: Api, tenant: Tenant) -> None:
    job_id = api.validated(tenant.create_job()["id"])
    advance(api, job_id, State.STARTING, State.RUNNING, State.PUBLISHING)
    with transaction(api.system) as session:
        error = {"code": "inference_away", "message": "kept", "param": None}
        move(session, job_id, State.PAUSED, "kept", level="error", error=error)
    shown = tenant.openai.fine_tuning.jobs.retrieve(job_id)
    assert (shown.status, shown.error and shown.error.code) == ("paused", "inference_away")
    with pytest.raises(openai.NotFoundError):
        api.new_tenant().openai.fine_tuning.jobs.resume(job_id)
    resumed = tenant.openai.fine_tuning.jobs.resume(job_id)
    assert (resumed.id, resumed.status, resumed.error) == (job_id, "queued", None)


@pytest.mark.parametrize("path", [[], [State.STARTING, State.RUNNING], [State.CANCELLED]])
def test_only_a_paused_job_can_be_resumed(api: Api, tenant: Tenant, path: list[State]) -> None:
    job_id = api.validated(tenant.create_job()["id"])
    advance(api, job_id, *path)
    with pytest.raises(openai.ConflictError) as caught:
        tenant.openai.fine_tuning.jobs.resume(job_id)
    assert caught.value.code == "job_not_paused"
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_a_succeeded_job_names_its_model_and_checkpoints(api: Api, tenant: Tenant) -> None:
    job_id = api.validated(tenant.create_job()["id"])
    advance(api, job_id, State.STARTING, State.RUNNING, State.PUBLISHING, State.SUCCEEDED)
    model = api.add_adapter(tenant, job_id)
    steps = [10, 20, 30]
    names = [api.add_adapter(tenant, job_id, step) for step in steps]
    job = tenant.openai.fine_tuning.jobs.retrieve(job_id)
    assert (job.status, job.fine_tuned_model) == ("succeeded", model)
    listed = list(tenant.openai.fine_tuning.jobs.checkpoints.list(job_id, limit=2))
    assert [checkpoint.step_number for checkpoint in listed] == steps[::-1]
    assert [checkpoint.fine_tuned_model_checkpoint for checkpoint in listed] == names[::-1]
    assert listed[0].metrics.train_loss == 0.5


def test_a_broker_that_never_answers_neither_fails_nor_delays_a_create(
    database: Database, upstream: Upstream
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker_url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with running_api(database, upstream.url, broker_url) as api:
            tenant = api.new_tenant()
            file_id = tenant.upload(training_rows(12))
            began = time.monotonic()
            for _ in range(5):
                tenant.create_job(training_file=file_id)
            # One ring alone would wait for the broker for a second or more.
            assert time.monotonic() - began < 5 * RING_TIMEOUT_SECONDS


def test_the_bell_rings_after_a_create(
    database: Database, broker: Broker, upstream: Upstream
) -> None:
    with running_api(database, upstream.url, broker.url) as api:
        tenant = api.new_tenant()
        path = broker.url.removeprefix("redis+socket://").split("?")[0]
        with redis.Redis(unix_socket_path=path) as client:
            wait_until(lambda: client.llen("default") == 1, "the ring at the start")
            tenant.create_job()
            wait_until(lambda: client.llen("default") == 2, "the ring of the create")
