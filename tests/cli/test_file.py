from pathlib import Path

from tests.cli.conftest import Reply, error_reply

STORED = {
    "id": "file-1",
    "object": "file",
    "bytes": 1,
    "created_at": 1,
    "filename": "rows.jsonl",
    "purpose": "fine-tune",
    "status": "processed",
    "status_details": None,
}
JAPANESE = "examples/company/sample_ja.jsonl"


def test_check_needs_no_server(tailor) -> None:
    result = tailor("file", "check", JAPANESE)
    assert result.exit_code == 0
    assert "12 rows" in result.output


def test_check_shows_the_data_report_with_token_figures(tailor, tmp_path: Path) -> None:
    rows = Path(JAPANESE).read_text(encoding="utf-8")
    path = tmp_path / "質問.jsonl"
    path.write_text(rows + rows.splitlines()[3] + "\n", encoding="utf-8")
    result = tailor("file", "check", str(path))
    assert result.exit_code == 0
    assert "13 (like 4)" in result.output
    assert "tokens a row" in result.output
    assert "ja 13" in result.output


def test_check_without_a_tokenizer_goes_without_token_figures(tailor, tmp_path: Path) -> None:
    result = tailor("file", "check", JAPANESE, "--models-dir", str(tmp_path))
    assert result.exit_code == 0
    assert "no token figures" in result.output
    assert "tokens a row" not in result.output


def test_check_names_every_row_that_a_job_would_refuse(tailor, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    long = '{"prompt": "a", "completion": "' + "長い" * 9000 + '"}\n'
    good = "".join(f'{{"prompt": "q{i}", "completion": "a{i}"}}\n' for i in range(9))
    path.write_text(good + long + good + long, encoding="utf-8")
    result = tailor("file", "check", str(path))
    assert result.exit_code == 1
    assert "Line 10: " in result.output
    assert "Line 20: " in result.output
    assert "長い" not in result.output


def test_check_compares_with_a_validation_file(tailor) -> None:
    result = tailor("file", "check", JAPANESE, "--validation-file", JAPANESE)
    assert "validation row that is also trained on" in result.output


def test_check_names_every_faulty_line(tailor, tmp_path: Path) -> None:
    path = tmp_path / "壊れた.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"\n\n[]\n', encoding="utf-8")
    result = tailor("file", "check", str(path))
    assert result.exit_code == 1
    assert "Line 2:" in result.output
    assert "Line 4:" in result.output


def test_check_counts_the_faulty_lines_that_it_does_not_show(tailor, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n' * 1200, encoding="utf-8")
    result = tailor("file", "check", str(path))
    assert result.exit_code == 1
    assert "1,200 error(s), the first 50 above" in result.output
    assert result.output.count("Line ") == 50


def test_check_refuses_too_few_rows(tailor, tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    result = tailor("file", "check", str(path))
    assert result.exit_code == 1
    assert "at least 10" in result.output


def test_a_missing_file_is_one_sentence(tailor) -> None:
    result = tailor("file", "check", "nowhere.jsonl")
    assert result.exit_code == 1
    assert result.output == "error: nowhere.jsonl does not exist or is not a file\n"


def test_upload_prints_the_id(api, tailor) -> None:
    api.on("POST /files", Reply(STORED))
    result = tailor("file", "upload", JAPANESE)
    assert result.output == "file-1\n"
    assert b'name="purpose"' in api.requests[0].body
    assert api.requests[0].key == "sk-test"


def test_the_ending_says_what_is_a_document_unless_the_user_does(api, tailor, tmp_path) -> None:
    api.on("POST /files", *[Reply(STORED)] * 3)
    document = tmp_path / "handbook.PDF"
    document.write_bytes(b"%PDF")
    for arguments in ([str(document)], [JAPANESE, "--purpose", "user_data"], [JAPANESE]):
        assert tailor("file", "upload", *arguments).output == "file-1\n"
    purposes = [request.body.split(b'name="purpose"')[1].split()[0] for request in api.requests]
    assert purposes == [b"user_data", b"user_data", b"fine-tune"]
    refused = tailor("file", "upload", JAPANESE, "--purpose", "theft")
    assert "--purpose must be" in refused.output


def test_a_refused_key_is_one_sentence(api, tailor) -> None:
    api.on("POST /files", error_reply(401, "Incorrect API key provided.", "invalid_api_key"))
    result = tailor("file", "upload", JAPANESE)
    assert result.exit_code == 1
    assert result.output == "error: Incorrect API key provided.\n"
