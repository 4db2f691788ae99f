"""Files over HTTP: upload, validation, limits, retrieval, deletion."""

import json
import socket
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from tests.conftest import wait_until
from tests.services.api.conftest import Api, Tenant, stored_files, training_rows

ROWS = training_rows(12)


def test_an_uploaded_training_file_is_read_back_unchanged(tenant: Tenant) -> None:
    made = tenant.openai.files.create(file=("研修データ.jsonl", ROWS), purpose="fine-tune")
    assert (made.object, made.status, made.bytes) == ("file", "processed", len(ROWS))
    assert made.filename == "研修データ.jsonl"
    assert made.model_extra is not None
    assert made.model_extra["report"]["rows"] == 12
    assert tenant.openai.files.retrieve(made.id) == made
    assert tenant.openai.files.content(made.id).read() == ROWS
    assert tenant.openai.files.wait_for_processing(made.id).id == made.id


def test_normalised_rows_lie_beside_the_raw_bytes(api: Api, tenant: Tenant) -> None:
    folder = api.store.upload(tenant.upload("prompt,completion\n問,答え\n".encode(), "a.csv"))
    assert {path.name for path in folder.iterdir()} == {"raw", "rows.jsonl", "MANIFEST.json"}
    row = json.loads((folder / "rows.jsonl").read_text())
    assert row["line"] == 2
    assert row["messages"][1] == {"role": "assistant", "content": "答え", "weight": 1}


def test_a_bad_line_is_named_and_nothing_is_stored(api: Api, tenant: Tenant) -> None:
    before = stored_files(api.store.root)
    bad = ROWS + '{"instruction": "秘密の質問"}\n'.encode()
    with pytest.raises(openai.BadRequestError) as caught:
        tenant.openai.files.create(file=("a.jsonl", bad), purpose="fine-tune")
    assert caught.value.code == "invalid_training_file"
    assert caught.value.param == "file"
    assert "Line 13:" in caught.value.message
    assert "秘密" not in caught.value.message
    assert stored_files(api.store.root) == before
    assert tenant.openai.files.list().data == []


def test_files_are_listed_newest_first_in_pages(tenant: Tenant) -> None:
    ids = [tenant.upload(ROWS) for _ in range(3)]
    listed = [file.id for file in tenant.openai.files.list(limit=2)]
    assert listed == sorted(ids, reverse=True)
    first = tenant.http.get("/v1/files", params={"limit": 2}).json()
    assert (first["has_more"], first["first_id"]) == (True, listed[0])
    ascending = tenant.openai.files.list(order="asc", purpose="fine-tune")
    assert [file.id for file in ascending] == sorted(ids)
    assert tenant.openai.files.list(purpose="batch").data == []


@pytest.mark.parametrize("seconds", ["0000003600999", "9" * 40, "3599", "-1", "x"])
def test_an_expiry_out_of_range_is_refused(tenant: Tenant, seconds: str) -> None:
    form = {"purpose": "fine-tune", "expires_after[anchor]": "created_at"}
    answer = tenant.http.post(
        "/v1/files",
        files={"file": ("a.jsonl", ROWS)},
        data=form | {"expires_after[seconds]": seconds},
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "expires_after.seconds"


def test_expiry_is_kept_and_checked(tenant: Tenant) -> None:
    made = tenant.openai.files.create(
        file=("a.jsonl", ROWS),
        purpose="fine-tune",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert made.expires_at is not None
    assert abs(made.expires_at - made.created_at - 3600) <= 1
    with pytest.raises(openai.BadRequestError) as caught:
        tenant.openai.files.create(
            file=("a.jsonl", ROWS),
            purpose="fine-tune",
            expires_after={"anchor": "created_at", "seconds": 5},
        )
    assert caught.value.param == "expires_after.seconds"


def test_other_purposes_are_kept_unread(tenant: Tenant) -> None:
    file_id = tenant.upload(b"\x00\xff not a training file", "notes.bin", "assistants")
    assert tenant.openai.files.content(file_id).read() == b"\x00\xff not a training file"


def test_a_document_is_read_into_passages_and_is_a_file_like_any_other(
    tenant: Tenant, api: Api
) -> None:
    body = "# 返品\n\n三十日以内にお願いします。\n".encode()
    file_id = tenant.upload(body, "規程.md", "user_data")
    [listed] = tenant.openai.files.list(purpose="user_data")
    assert (listed.id, listed.filename, listed.purpose) == (file_id, "規程.md", "user_data")
    report = tenant.http.get(f"/v1/files/{file_id}").json()["report"]
    assert (report["kind"], report["passages"], report["error"]) == ("markdown", 1, None)
    stored = api.store.upload(file_id) / "passages.jsonl"
    assert json.loads(stored.read_text()) == {
        "document": "規程.md",
        "place": "返品",
        "text": body.decode().strip(),
    }
    assert tenant.openai.files.content(file_id).read() == body
    assert tenant.openai.files.delete(file_id).deleted


def test_a_document_that_cannot_be_read_is_refused_and_not_kept(tenant: Tenant) -> None:
    with pytest.raises(openai.BadRequestError, match="no kind that is read") as caught:
        tenant.openai.files.create(file=("a.bin", b"abc"), purpose="user_data")
    assert (caught.value.param, caught.value.code) == ("file", "invalid_document")
    assert list(tenant.openai.files.list()) == []


@pytest.mark.parametrize(
    ("request_part", "param"),
    [
        ({"data": {"purpose": "fine-tune"}}, "file"),
        ({"files": {"file": ("a.jsonl", ROWS)}}, "purpose"),
        ({"files": {"file": ("a.jsonl", ROWS)}, "data": {"purpose": "theft"}}, "purpose"),
        ({"json": {"purpose": "fine-tune"}}, "file"),
        ({"files": {"file": ("a.jsonl", b"")}, "data": {"purpose": "fine-tune"}}, "file"),
    ],
)
def test_an_incomplete_form_is_a_400_that_names_the_part(
    tenant: Tenant, request_part: dict[str, object], param: str
) -> None:
    answer = tenant.http.post("/v1/files", **request_part)  # type: ignore[arg-type]
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_filename_never_becomes_a_path(api: Api, tenant: Tenant) -> None:
    file_id = tenant.upload(ROWS, "../../../etc/passwd.jsonl")
    assert tenant.openai.files.retrieve(file_id).filename == "passwd.jsonl"
    assert (api.store.upload(file_id) / "raw").read_bytes() == ROWS


def test_a_deleted_file_is_gone_for_its_owner(tenant: Tenant) -> None:
    file_id = tenant.upload(ROWS)
    deleted = tenant.openai.files.delete(file_id)
    assert (deleted.id, deleted.deleted) == (file_id, True)
    for call in (
        tenant.openai.files.retrieve,
        tenant.openai.files.content,
        tenant.openai.files.delete,
    ):
        with pytest.raises(openai.NotFoundError):
            call(file_id)


def test_a_file_that_a_live_job_uses_cannot_be_deleted(tenant: Tenant) -> None:
    job = tenant.create_job()
    with pytest.raises(openai.ConflictError) as caught:
        tenant.openai.files.delete(job["training_file"])
    assert caught.value.code == "file_in_use"
    assert caught.value.response.headers["x-should-retry"] == "false"
    tenant.openai.fine_tuning.jobs.cancel(job["id"])
    assert tenant.openai.files.delete(job["training_file"]).deleted


def test_an_oversized_upload_is_a_413_and_leaves_nothing(api: Api, tenant: Tenant) -> None:
    before = stored_files(api.store.root)
    too_large = b"x" * (api.settings.upload_max_bytes + 1)
    answer = tenant.http.post(
        "/v1/files", files={"file": ("a.jsonl", too_large)}, data={"purpose": "fine-tune"}
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "payload_too_large"
    assert stored_files(api.store.root) == before


def test_a_body_without_a_declared_length_is_cut_off_at_the_limit(api: Api, tenant: Tenant) -> None:
    before = stored_files(api.store.root)

    def body() -> object:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(64):
            yield b"x" * 2**16

    answer = tenant.http.post(
        "/v1/files",
        content=body(),  # type: ignore[arg-type]
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert answer.status_code == 413
    assert stored_files(api.store.root) == before


@pytest.mark.parametrize(
    ("key_is_right", "length", "status"), [(False, 100, b"401"), (True, 2**40, b"413")]
)
def test_key_and_length_are_answered_before_any_byte_of_the_body(
    api: Api, tenant: Tenant, key_is_right: bool, length: int, status: bytes
) -> None:
    with open_post(api, tenant.key if key_is_right else "tl-wrong", length) as connection:
        assert status in connection.recv(4096).split(b"\r\n")[0]


def test_a_client_that_leaves_during_an_upload_leaves_nothing(api: Api, tenant: Tenant) -> None:
    before = stored_files(api.store.root)
    with open_post(api, tenant.key, 10**6) as connection:
        connection.sendall(
            b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
        )
        wait_until(lambda: stored_files(api.store.root) != before, "the upload has begun")
    wait_until(lambda: stored_files(api.store.root) == before, "nothing remains")


def open_post(api: Api, key: str, length: int) -> socket.socket:
    """Send the headers of an upload and nothing of its body."""
    address = urlsplit(api.url)
    connection = socket.create_connection((address.hostname, address.port), 10)
    connection.sendall(
        f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        "content-type: multipart/form-data; boundary=b\r\n"
        f"content-length: {length}\r\n\r\n".encode()
    )
    return connection


def test_truncated_multipart_is_a_400_and_leaves_nothing(api: Api, tenant: Tenant) -> None:
    before = stored_files(api.store.root)
    whole = httpx.Request(
        "POST", "http://x", files={"file": ("a.jsonl", ROWS)}, data={"purpose": "fine-tune"}
    )
    content_type = {"content-type": whole.headers["content-type"]}
    for cut in (1, 40, 200, len(whole.read()) - 10):
        answer = tenant.http.post("/v1/files", content=whole.content[:cut], headers=content_type)
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert stored_files(api.store.root) == before


def send(tenant: Tenant, disposition: bytes, body: bytes) -> httpx.Response:
    """Upload with a Content-Disposition of the test's own."""
    form = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    form += b"--b\r\ncontent-disposition: form-data; " + disposition + b"\r\n\r\n" + body
    headers = {"content-type": "multipart/form-data; boundary=b"}
    return tenant.http.post("/v1/files", content=form + b"\r\n--b--\r\n", headers=headers)


TABLE = b"instruction,output\n" + b"".join(b"q%d,a%d\n" % (i, i) for i in range(10))


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (b"name=file; filename*=utf-8''%E8%B3%AA%E5%95%8F.csv", "質問.csv"),
        (b"name=\"file\"; filename*=Shift_JIS''%8E%BF%96%E2.csv", "質問.csv"),
        (b'name="file"; filename="x.jsonl"; filename*=UTF-8\'ja\'%E8%B3%AA.csv', "質.csv"),
        (b'name=file; filename="=?utf-8?B?6LOq5ZWPLmNzdg==?="', "質問.csv"),
        (b'name=file; filename="=?utf-8?Q?=E8=B3=AA=2Ecsv?="', "質.csv"),
        (b'name=file; filename="' + "質問.csv".encode("cp932") + b'"', "質問.csv"),
        (b"name=file; filename*=no-such''%E8.csv; filename=\"a.csv\"", "a.csv"),
    ],
)
def test_a_name_is_read_however_it_is_spelt(tenant: Tenant, disposition: bytes, name: str) -> None:
    answer = send(tenant, disposition, TABLE)
    assert answer.status_code == 200, answer.text
    assert answer.json()["filename"] == name
    assert answer.json()["report"]["rows"] == 10


@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [("bytes=99999-", 416, "range_not_satisfiable"), ("lines=1", 400, None)],
)
def test_a_range_that_cannot_be_sent_is_refused_in_openais_shape(
    tenant: Tenant, wanted: str, status: int, code: str | None
) -> None:
    url = f"/v1/files/{tenant.upload(b'kept', purpose='assistants')}/content"
    answer = tenant.http.get(url, headers={"range": wanted})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, "Range", code)
    assert tenant.http.get(url, headers={"range": "bytes=1-2"}).text == "ep"
