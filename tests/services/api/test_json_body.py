"""Bodies as people send them: packed, unlabelled, in other encodings, broken, half a character."""

import gzip
import json
import zlib
from typing import Any

import pytest

from services.api.json_body import parsed, unpacked
from shared.errors import InvalidRequest, PayloadTooLarge, TailorError
from tests.services.api.conftest import BASE, Tenant, Upstream
from tests.services.api.test_completions import whole_answer

URL = "/v1/chat/completions"
ASKED = {"model": BASE, "messages": [{"role": "user", "content": "営業時間は?"}]}
BODY = json.dumps(ASKED, ensure_ascii=False).encode()


def post(tenant: Tenant, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    """Send a chat and return status and error."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named.setdefault("content-type", "application/json")
    answer = tenant.http.post(URL, content=body, headers=named)
    return answer.status_code, answer.json().get("error", {})


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "application/x-www-form-urlencoded",
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/octet-stream",
        "multipart/form-data",
        "application/json; charset=shift_jis",
        "application/vnd.api+json",
        "nonsense",
    ],
)
def test_json_is_read_whatever_it_is_called(
    tenant: Tenant, upstream: Upstream, kind: str | None
) -> None:
    upstream.script = whole_answer
    headers = {"content-type": kind} if kind is not None else {}
    assert tenant.http.post(URL, content=BODY, headers=headers).status_code == 200
    assert upstream.seen[0].body["messages"] == ASKED["messages"]


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (gzip.compress(BODY), "gzip"),
        (gzip.compress(BODY), "x-gzip"),
        (zlib.compress(BODY), "deflate"),
        (zlib.compress(BODY, wbits=-15), "deflate"),
        (BODY, "identity"),
        (b"\xef\xbb\xbf" + BODY, "identity"),
        (gzip.compress(b"\xef\xbb\xbf" + BODY), "GZIP"),
    ],
)
def test_packed_and_marked_bodies_are_unpacked(
    tenant: Tenant, upstream: Upstream, packed: bytes, encoding: str
) -> None:
    upstream.script = whole_answer
    assert post(tenant, packed, content_encoding=encoding)[0] == 200
    assert upstream.seen[0].body["messages"] == ASKED["messages"]


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "aes128gcm"])
def test_other_packings_are_a_415_that_names_them(tenant: Tenant, encoding: str) -> None:
    status, error = post(tenant, b"\x00\x01", content_encoding=encoding)
    assert (status, error["code"]) == (415, "unsupported_content_encoding")
    assert encoding in error["message"]


@pytest.mark.parametrize("packed", [BODY, b"\x1f\x8b\x08\x00", gzip.compress(BODY)[:-9]])
def test_a_body_that_is_not_packed_as_it_says_is_a_400(tenant: Tenant, packed: bytes) -> None:
    status, error = post(tenant, packed, content_encoding="gzip")
    assert (status, error["param"]) == (400, "Content-Encoding")


def test_a_packed_bomb_is_stopped_at_the_limit(tenant: Tenant) -> None:
    bomb = gzip.compress(b" " * 100_000_000)
    assert len(bomb) < 200_000
    status, error = post(tenant, bomb, content_encoding="gzip")
    assert (status, error["code"]) == (413, "payload_too_large")
    with pytest.raises(PayloadTooLarge):
        unpacked(zlib.compress(b"x" * 1001), "deflate", 1000)
    assert unpacked(zlib.compress(b"x" * 1000), "deflate", 1000) == b"x" * 1000


@pytest.mark.parametrize("encoding", ["cp932", "euc-jp", "gbk", "utf-16", "utf-16-le", "utf-32"])
def test_a_body_in_another_encoding_is_told_so(tenant: Tenant, encoding: str) -> None:
    text = BODY.decode()
    kind = f"application/json; charset={encoding}"
    status, error = post(tenant, text.encode(encoding), content_type=kind)
    assert (status, error["code"]) == (400, "invalid_json")
    assert "not encoded in UTF-8" in error["message"]
    assert encoding in error["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b"[]", "must be a JSON object"),
        (b"1", "must be a JSON object"),
        (b'"hello"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"model": "a",}', "line 1, column 15"),
        (b"{'model': 'a'}", "line 1, column 2"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 20_000, "nested too deeply"),
        (b'{"n": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"\xff\xfe{", "byte 1 is not UTF-8"),
        (b"model=a&prompt=b", "labelled 'application/x-www-form-urlencoded'"),
    ],
)
@pytest.mark.parametrize("url", [URL, "/v1/fine_tuning/jobs"])
def test_what_is_no_json_object_is_refused_in_the_senders_words(
    tenant: Tenant, url: str, body: bytes, said: str
) -> None:
    form = b"=" in body
    kind = {"content-type": f"application/{'x-www-form-urlencoded' if form else 'json'}"}
    answer = tenant.http.post(url, content=body, headers=kind)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_json", None)
    assert said in error["message"]
    assert "Input should" not in error["message"]


HALF = "cut off here \ud83d"


def asking(**changes: Any) -> dict[str, Any]:
    """Build a chat with something changed."""
    return ASKED | changes


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (asking(messages=[{"role": "user", "content": HALF}]), "messages.0.content"),
        (
            asking(messages=[{"role": "user", "content": [{"type": "text", "text": HALF}]}]),
            "messages.0.content.0.text",
        ),
        (
            asking(messages=[*ASKED["messages"], {"role": "assistant", "content": "\udc4d"}]),
            "messages.1.content",
        ),
        (asking(messages=[{"role": "user", "content": "x", "name": HALF}]), "messages.0.name"),
        (asking(metadata={"a": HALF}), "metadata.a"),
        (asking(metadata={HALF: "a"}), "metadata"),
        (asking(user=HALF), "user"),
        (asking(model=HALF), "model"),
        (asking(stop=["a", HALF]), "stop.1"),
    ],
)
def test_half_a_character_is_a_400_that_names_its_place(
    tenant: Tenant, upstream: Upstream, asked: dict[str, Any], param: str
) -> None:
    status, error = post(tenant, json.dumps(asked).encode())
    assert (status, error["code"], error["param"]) == (400, "invalid_value", param)
    assert upstream.seen == []


@pytest.mark.parametrize("field", ["suffix", "training_file", "metadata"])
def test_half_a_character_in_a_job_is_a_400(tenant: Tenant, field: str) -> None:
    value = {"a": HALF} if field == "metadata" else HALF
    body = json.dumps({"model": BASE, "training_file": "x", field: value}).encode()
    kind = {"content-type": "application/json"}
    answer = tenant.http.post("/v1/fine_tuning/jobs", content=body, headers=kind)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(field)


def test_both_halves_are_a_character_and_an_escape_in_a_text_is_only_text() -> None:
    assert parsed(rb'{"a": "\ud83d\ude00"}') == {"a": "\U0001f600"}
    assert parsed(rb'{"a": "\\ud83d"}') == {"a": "\\ud83d"}


@pytest.mark.parametrize("depth", [400, 900])
@pytest.mark.parametrize("place", ["dpo", "reinforcement"])
def test_another_method_beside_the_supervised_is_refused_however_deep(
    tenant: Tenant, place: str, depth: int
) -> None:
    deep: dict[str, Any] = {}
    for _ in range(depth):
        deep = {"a": deep}
    asked = {"model": BASE, "training_file": "x", "method": {"type": "supervised", place: deep}}
    answer = tenant.http.post("/v1/fine_tuning/jobs", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == f"method.{place}"


def test_errors_of_a_body_can_be_told_apart() -> None:
    for data, kind in ((b"{", InvalidRequest), (b"[1]", InvalidRequest)):
        with pytest.raises(TailorError) as caught:
            parsed(data)
        assert isinstance(caught.value, kind)
        assert caught.value.code == "invalid_json"
