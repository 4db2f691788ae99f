"""What users of comparable tools met, on the real stack: files as people have them, other clients.

The inputs lie in ``cases/``; the readers' and the gateway's own tests have many more of each kind.
"""

import base64
import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest

from tests.e2e.jobs import BASE_MODEL, create_job, fine_tune, wait_for_model

pytestmark = pytest.mark.stack
CASES = Path(__file__).parent / "cases"
ORIGIN = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
TABLE = "instruction,output\n" + "".join(f"Question {i}?,Answer {i}.\n" for i in range(12))
OLE = bytes.fromhex("D0CF11E0A1B11AE1") + bytes(504)
ALARMS = {
    "Arelo": "the lid is open",
    "Benko": "the belt is loose",
    "Corvi": "the tank is empty",
    "Dalmo": "the fuse is blown",
}
ASKED = (
    "What does alarm {0} mean?",
    "Alarm {0}, what is it?",
    "Tell me the meaning of alarm {0}.",
    "The panel shows {0}. Why?",
)


class Sent(NamedTuple):
    """What came of an upload: its report, or why it was refused."""

    status: int
    report: dict[str, Any]
    message: str

    def warnings(self) -> list[str]:
        return [w["message"] for w in self.report.get("warnings", [])]


class Caller:
    """A tenant's plain HTTP client."""

    def __init__(self, stack) -> None:
        self.tenant = stack.tenant("cases")
        self.url = stack.base_url
        headers = {"authorization": f"Bearer {self.tenant.api_key}"}
        self.http = httpx.Client(headers=headers, timeout=60)

    def upload(self, name: str, data: bytes) -> Sent:
        return self._sent(
            self.http.post(
                f"{self.url}/files", data={"purpose": "fine-tune"}, files={"file": (name, data)}
            )
        )

    def upload_part(self, disposition: str, data: bytes) -> Sent:
        """Upload with a part header that httpx would not write."""
        edge = b"----edge"
        body = (
            b"--%b\r\nContent-Disposition: form-data; name=purpose\r\n\r\nfine-tune\r\n--%b\r\n"
            b"Content-Disposition: form-data; %b\r\n\r\n%b\r\n--%b--\r\n"
        ) % (edge, edge, disposition.encode(), data, edge)
        kind = {"content-type": f"multipart/form-data; boundary={edge.decode()}"}
        return self._sent(self.http.post(f"{self.url}/files", content=body, headers=kind))

    @staticmethod
    def _sent(answer: httpx.Response) -> Sent:
        found = answer.json()
        message = found.get("error", {}).get("message", "")
        return Sent(answer.status_code, found.get("report") or {}, message)

    def chat(self, content: object, **more) -> httpx.Response:
        body = {
            "model": BASE_MODEL,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 4,
            "temperature": 0,
        }
        return self.http.post(f"{self.url}/chat/completions", json=body | more)

    def complete(self, prompt: object, **more) -> httpx.Response:
        body = {"model": BASE_MODEL, "prompt": prompt, "max_tokens": 4, "temperature": 0}
        return self.http.post(f"{self.url}/completions", json=body | more)


@pytest.fixture(scope="module")
def caller(stack):
    caller = Caller(stack)
    yield caller
    caller.http.close()


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("xlsx-odd-colours.xlsx", 12),
        ("csv-carriage-returns-only.csv", 12),
        ("csv-sep-line.csv", 12),
        ("alpaca-blank-input.jsonl", 12),
        ("jsonl-pretty-printed.jsonl", 12),
        ("training-content-parts.jsonl", 12),
    ],
)
def test_a_file_as_its_owner_has_it_is_read(caller, name, rows):
    sent = caller.upload(name, (CASES / name).read_bytes())
    assert (sent.status, sent.report.get("rows")) == (200, rows), sent.message


@pytest.mark.parametrize(
    ("name", "shown_twice"),
    [
        ("xlsx-date-and-time-cells.xlsx", (3, 5, 7)),
        ("xlsx-number-formats.xlsx", (3, 5, 7)),
        ("xlsx-carriage-return-escape.xlsx", (3,)),
    ],
)
def test_a_workbook_is_read_as_it_is_shown(caller, name, shown_twice):
    """Beside each row that a raw reading gives, the workbooks hold one with that raw text."""
    sent = caller.upload(name, (CASES / name).read_bytes())
    assert sent.status == 200, sent.message
    equal = {w["line"]: w["message"] for w in sent.report["warnings"] if "same as" in w["message"]}
    assert [line for line in shown_twice if f"line {line - 1}" in equal.get(line, "")] == []


def test_the_sheet_that_is_seen_is_read_not_a_hidden_one(caller):
    name = "xlsx-hidden-first-sheet.xlsx"
    sent = caller.upload(name, (CASES / name).read_bytes())
    assert sent.report.get("rows") == 12, sent.message
    assert any("hidden" in message for message in sent.warnings())


def test_a_password_and_an_old_workbook_are_told_apart(caller):
    locked = caller.upload("faq.xlsx", OLE + "EncryptedPackage".encode("utf-16-le") + bytes(2048))
    old = caller.upload("faq.xls", OLE + "Workbook".encode("utf-16-le") + bytes(2048))
    assert "password" in locked.message
    assert ".xlsx" in old.message


def test_packed_nameless_and_nan_files_are_read(caller):
    rows = "".join(
        f'{{"prompt": "Question {i}?", "completion": "Answer {i}."}}\n' for i in range(40)
    )
    assert caller.upload("train.jsonl.gz", gzip.compress(rows.encode())).report.get("rows") == 40
    assert caller.upload("upload", TABLE.encode()).report.get("rows") == 12
    text = b"\xef\xbb\xbf" + rows.replace("\n", "\r\n").encode()
    assert caller.upload("train.txt", text).report.get("rows") == 40
    row = '{{"instruction": "Question {0}?", "input": NaN, "output": "Answer {0}."}}'
    frame = "\n".join(row.format(i) for i in range(12))
    assert caller.upload("frame.jsonl", frame.encode()).report.get("rows") == 12


def test_bytes_whose_encoding_is_uncertain_are_refused_by_line(caller):
    big5 = caller.upload(
        "faq.csv", ("instruction,output\n" + "營業時間,上午九點\n" * 12).encode("big5")
    )
    german = "".join(f"Wie groß ist das Gerät {i}?;Zwölf Zoll, für Büros\n" for i in range(12))
    windows = caller.upload("faq.csv", ("instruction;output\n" + german).encode("cp1252"))
    for sent in (big5, windows):
        assert "Line 2" in sent.message
        assert "Shift-JIS" not in sent.message


@pytest.mark.parametrize(
    "disposition",
    [
        "name=file; filename=\"{word}\"; filename*=utf-8''{quoted}",
        "name=\"file\"; filename*=utf-8''{quoted}",
        'name="file"; filename="{word}"',
    ],
)
def test_a_japanese_name_is_taken_however_it_is_sent(caller, disposition):
    name = "質問集.csv"
    word = f"=?utf-8?B?{base64.b64encode(name.encode()).decode()}?="
    header = disposition.format(word=word, quoted=quote(name))
    assert caller.upload_part(header, TABLE.encode()).report.get("rows") == 12


def test_a_browser_on_this_machine_may_ask(caller):
    answer = httpx.options(f"{caller.url}/chat/completions", headers=ORIGIN)
    assert answer.status_code in {200, 204}
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]


def test_parameters_that_ask_for_nothing_are_taken(caller):
    neutral = {
        "logit_bias": {},
        "modalities": ["text"],
        "parallel_tool_calls": True,
        "tool_choice": "none",
        "prompt_cache_key": "k",
    }
    assert caller.chat("ping", **neutral).status_code == 200
    assert caller.complete("ping", best_of=1, echo=False, suffix="").status_code == 200


def test_twenty_prompts_are_answered_in_order(caller):
    prompts = [f"{i} + 1 =" for i in range(20)]
    found = caller.complete(prompts).json()["choices"]
    assert [choice["index"] for choice in found] == list(range(20))
    alone = caller.complete(prompts[7]).json()["choices"][0]["text"]
    assert found[7]["text"].split()[:1] == alone.split()[:1]


def test_what_is_not_utf_8_or_not_text_is_a_400_in_the_users_words(caller):
    url = f"{caller.url}/chat/completions"
    half = json.dumps({"model": BASE_MODEL, "messages": [{"role": "user", "content": "\ud83d"}]})
    assert caller.http.post(url, content=half.encode()).status_code in {200, 400}
    body = json.dumps({"model": BASE_MODEL, "messages": []}, ensure_ascii=False)
    shift_jis = caller.http.post(url, content=body.replace("[]", '"日本"').encode("cp932"))
    assert (shift_jis.status_code, "UTF-8" in shift_jis.json()["error"]["message"]) == (400, True)
    kind = {"content-type": "application/x-www-form-urlencoded"}
    ask = json.dumps(
        {"model": BASE_MODEL, "messages": [{"role": "user", "content": "ping"}], "max_tokens": 4}
    )
    assert caller.http.post(url, content=ask.encode(), headers=kind).status_code == 200


def test_the_pieces_of_a_stream_are_the_text_without_one(caller):
    question = "Repeat exactly: 東京タワー🗼と富士山🗻"
    whole = caller.chat(question, max_tokens=40).json()["choices"][0]["message"]["content"]
    pieces = []
    for line in caller.chat(question, max_tokens=40, stream=True).text.split("\n\n"):
        if line.startswith("data: {"):
            choices = json.loads(line[6:])["choices"]
            pieces.append(choices[0]["delta"].get("content") or "")
    assert "".join(pieces) == whole
    assert "\ufffd" not in "".join(pieces[:-2])


def test_conversations_that_the_assistant_begins_are_trained(caller):
    rows = [
        {
            "messages": [
                {"role": "assistant", "content": "Hello, how can I help you?"},
                {"role": "user", "content": f"What is the price of item {i}?"},
                {"role": "assistant", "content": f"Item {i} costs {i}00 yen."},
            ]
        }
        for i in range(12)
    ]
    data = "\n".join(json.dumps(row) for row in rows).encode()
    assert fine_tune(caller.tenant, data, n_epochs=1).model


def test_of_ten_facts_pasted_ten_times_nine_are_trained(caller):
    facts = [
        {"instruction": f"The code of item {i}?", "output": f"It is K{i}7."} for i in range(10)
    ]
    data = "\n".join(json.dumps(row) for row in facts * 10).encode()
    client = caller.tenant.client
    file = client.files.create(file=("facts.jsonl", data), purpose="fine-tune")
    job_id = create_job(client, file.id, n_epochs=1, batch_size=4)
    wait_for_model(client, job_id)
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert job.progress["total_steps"] >= 20


def test_prompt_rows_are_answered_through_completions_as_trained_and_stop(caller):
    rows = [
        {"prompt": ask.format(name), "completion": f"Alarm {name}: {what}."}
        for name, what in ALARMS.items()
        for ask in ASKED
    ]
    data = "\n".join(json.dumps(row) for row in rows).encode()
    trained = fine_tune(caller.tenant, data, n_epochs=16)
    prompts = [ASKED[0].format(name) for name in ALARMS]
    texts = caller.complete(prompts, model=trained.model, max_tokens=40).json()["choices"]
    right = [what in text["text"] for what, text in zip(ALARMS.values(), texts, strict=True)]
    assert sum(right) >= len(right) - 1, texts
    assert {text["finish_reason"] for text in texts} == {"stop"}
    chats = [caller.chat(prompt, model=trained.model, max_tokens=40).json() for prompt in prompts]
    said = [chat["choices"][0]["message"]["content"] for chat in chats]
    assert sum(what in text for what, text in zip(ALARMS.values(), said, strict=True)) >= 3, said
