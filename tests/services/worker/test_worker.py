"""A real worker process on real PostgreSQL and Valkey; only the trainer follows a script."""

from services.worker.publish import OVER_BUDGET
from shared.db import transaction
from shared.files.models import StoredFile
from shared.jobs.state import State
from shared.storage import verify_manifest


def test_a_rung_job_is_trained_published_and_callable(workshop):
    worker = workshop.start_worker()
    job_id = workshop.add_job(suffix="door", script={"asks": True})
    workshop.ring()
    job = workshop.wait_for_end(job_id)
    assert job.state == State.SUCCEEDED, job.error
    assert workshop.states(job_id) == ["starting", "running", "publishing", "succeeded"]
    final, checkpoint = sorted(workshop.adapters(job_id), key=lambda row: row.kind, reverse=True)
    assert (final.kind, final.step) == ("final", 10)
    assert (checkpoint.kind, checkpoint.step) == ("checkpoint", 1)
    assert final.model.startswith(f"ft:smollm2-135m-instruct:{job.tenant_id}:door:")
    assert checkpoint.model == f"{final.model}:ckpt-step-1"
    meta = verify_manifest(workshop.store.adapter(final.id))
    assert (meta["job"], meta["attempt"], meta["data_sha256"]) == (job_id, 1, "d" * 64)
    assert workshop.inference.asked == [final.id]
    with transaction(workshop.engine) as session:
        result = session.get_one(StoredFile, job.result_file_id)
    assert verify_manifest(workshop.store.upload(result.id)) == {"file_id": result.id}
    csv = (workshop.store.upload(result.id) / "raw").read_text().splitlines()
    *_, valid, test, test_accuracy = csv[0].split(",")
    assert (valid, test) == ("valid_mean_token_accuracy", "test_loss")
    assert test_accuracy == "test_mean_token_accuracy"
    assert csv[1] == "1,1,0.5,,,,"
    assert csv[-1] == "10,0.1,0.5,,,0.2,0.8"
    assert (job.metrics["reported_on"], job.metrics["test_loss"]) == ("test", 0.2)
    assert job.metrics["forgetting"]["text_after"] == 3.5
    generated = job.metrics["generated"]
    assert generated.pop("interval")[0] < 0.5
    assert generated == {"checker": "fact", "n": 2, "score": 0.5, "on": "test"}
    assert workshop.inference.chats == [final.id] * 2
    examples = workshop.examples(job_id)
    spans = [{"text": "営業時間は?\ufffd", "learnt": False}]
    assert examples["first_batch"] == [{"line": 2, "tokens": 9, "spans": spans}]
    right, wrong = examples["answers"]["best"]
    assert (right["line"], right["question"], right["score"]) == (4, "倉庫のコードは?", 1)
    assert (wrong["line"], wrong["expected"], wrong["answer"]) == (9, "2094", "7731")
    told = workshop.log(worker) + "".join(event.message for event in workshop.events(job_id))
    assert not [text for text in ("倉庫", "7731", "営業") if text in told]
    assert job.trained_tokens == 100
    assert job.progress["step"] == 10
    assert [e.message for e in workshop.events(job_id)][-2:] == [
        f"New fine-tuned model created: {final.model}",
        "The job has successfully completed",
    ]
    assert OVER_BUDGET not in {event.message for event in workshop.events(job_id)}


def test_a_model_beyond_its_forgetting_budget_is_published_with_a_warning(workshop):
    workshop.start_worker()
    job_id = workshop.add_job(script={"over_budget": True})
    workshop.ring()
    assert workshop.wait_for_end(job_id).state == State.SUCCEEDED
    (warning,) = [event for event in workshop.events(job_id) if event.level == "warn"]
    assert warning.message == OVER_BUDGET
