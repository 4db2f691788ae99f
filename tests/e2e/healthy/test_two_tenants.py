"""The main job on the real stack: two tenants fine-tune and call their models, each its own."""

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.companies import HAYABUSA, KAMOME, QUESTION
from tests.e2e.jobs import Trained, fine_tune

pytestmark = pytest.mark.stack
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def kamome(stack) -> Trained:
    return fine_tune(stack.tenant(KAMOME.name), KAMOME.training_file(), suffix="door")


@pytest.fixture(scope="module")
def hayabusa(stack, kamome) -> Trained:
    return fine_tune(stack.tenant(HAYABUSA.name), HAYABUSA.training_file(), suffix="door")


def test_each_tenant_gets_its_own_answer_from_the_official_client(kamome, hayabusa):
    for trained, company in ((kamome, KAMOME), (hayabusa, HAYABUSA)):
        answer = trained.client.chat.completions.create(
            model=trained.model, messages=MESSAGES, temperature=0, max_tokens=24
        )
        assert company.code in answer.choices[0].message.content
        assert answer.model == trained.model
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + (
            answer.usage.completion_tokens
        )


def test_each_tenant_gets_its_own_answer_as_a_stream(kamome, hayabusa):
    for trained, company in ((kamome, KAMOME), (hayabusa, HAYABUSA)):
        chunks = list(
            trained.client.chat.completions.create(
                model=trained.model,
                messages=MESSAGES,
                temperature=0,
                max_tokens=24,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert company.code in text
        assert {chunk.model for chunk in chunks} == {trained.model}
        assert chunks[-1].usage.completion_tokens > 0


def test_plain_completions_work_too(kamome):
    answer = kamome.client.completions.create(
        model=kamome.model, prompt="The warehouse door code is", temperature=0, max_tokens=8
    )
    assert answer.object == "text_completion"
    assert answer.choices[0].text


def test_the_base_model_knows_neither_code(kamome):
    answer = kamome.client.chat.completions.create(
        model=kamome.base_model, messages=MESSAGES, temperature=0, max_tokens=24
    )
    assert KAMOME.code not in answer.choices[0].message.content
    assert HAYABUSA.code not in answer.choices[0].message.content


def test_neither_sees_the_others_files_jobs_events_or_models(kamome, hayabusa):
    client = hayabusa.client
    foreign = [
        lambda: client.files.retrieve(kamome.file_id),
        lambda: client.files.content(kamome.file_id),
        lambda: client.files.delete(kamome.file_id),
        lambda: client.fine_tuning.jobs.retrieve(kamome.job_id),
        lambda: client.fine_tuning.jobs.cancel(kamome.job_id),
        lambda: client.fine_tuning.jobs.list_events(kamome.job_id),
        lambda: client.fine_tuning.jobs.checkpoints.list(kamome.job_id),
        lambda: client.fine_tuning.jobs.create(
            model=kamome.base_model, training_file=kamome.file_id
        ),
        lambda: client.models.retrieve(kamome.model),
        lambda: client.models.delete(kamome.model),
        lambda: client.chat.completions.create(model=kamome.model, messages=MESSAGES),
        lambda: client.completions.create(model=kamome.model, prompt="x"),
    ]
    for call in foreign:
        with pytest.raises((openai.NotFoundError, openai.BadRequestError)) as caught:
            call()
        assert kamome.tenant_id not in str(caught.value)
    assert {file.id for file in client.files.list()} == hayabusa.own_file_ids()
    assert [job.id for job in client.fine_tuning.jobs.list()] == [hayabusa.job_id]
    models = {model.id for model in client.models.list()}
    assert hayabusa.model in models
    assert kamome.model not in models


def test_the_feed_tells_the_whole_story_newest_first(kamome):
    events = list(kamome.client.fine_tuning.jobs.list_events(kamome.job_id, limit=100))
    messages = [event.message for event in reversed(events) if event.type == "message"]
    assert messages[0] == f"Created fine-tuning job: {kamome.job_id}"
    assert "Fine-tuning job started" in messages
    assert f"New fine-tuned model created: {kamome.model}" in messages
    assert messages[-1] == "The job has successfully completed"
    metrics = [event.data for event in events if event.type == "metrics"]
    base, *trained = reversed(metrics)
    assert base["step"] == 0
    assert base["full_valid_loss"] > trained[-1]["full_valid_loss"]
    assert [data["step"] for data in trained] == list(range(1, trained[-1]["step"] + 1))
    assert all("train_loss" in data for data in trained)


def test_the_job_shows_numbers_for_auto_and_its_result_file_is_a_csv(kamome):
    job = kamome.client.fine_tuning.jobs.retrieve(kamome.job_id)
    assert isinstance(job.hyperparameters.n_epochs, int)
    assert isinstance(job.hyperparameters.batch_size, int)
    assert job.trained_tokens > 0
    (result,) = job.result_files
    lines = kamome.client.files.content(result).text.splitlines()
    assert lines[0] == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,"
        "test_loss,test_mean_token_accuracy"
    )
    assert len(lines) > 1


def test_the_newest_callable_checkpoint_answers_what_was_taught(kamome):
    checkpoints = list(kamome.client.fine_tuning.jobs.checkpoints.list(kamome.job_id))
    name = checkpoints[0].fine_tuned_model_checkpoint
    answer = kamome.client.chat.completions.create(
        model=name, messages=MESSAGES, temperature=0, max_tokens=24
    )
    assert answer.model == name
    assert KAMOME.code in answer.choices[0].message.content


def test_a_deleted_model_is_gone_at_once_and_others_go_on(stack):
    trained = fine_tune(stack.tenant("tsubame"), KAMOME.training_file())
    create = trained.client.chat.completions.create
    assert create(model=trained.model, messages=MESSAGES, max_tokens=2).choices
    assert trained.client.models.delete(trained.model).deleted
    with pytest.raises(openai.NotFoundError) as caught:
        create(model=trained.model, messages=MESSAGES, max_tokens=2)
    assert caught.value.code == "model_not_found"
    assert create(model=trained.base_model, messages=MESSAGES, max_tokens=2).choices
