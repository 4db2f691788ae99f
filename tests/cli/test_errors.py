from cli.errors import CommandFailed, explain


def test_a_defect_is_not_explained_away() -> None:
    assert explain(ZeroDivisionError("x")) is None
    assert explain(CommandFailed("the disk is full")) == "the disk is full"


def test_an_unusable_setting_is_named_and_not_shown(tailor, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TAILOR_START_TIMEOUT_SECONDS", "5 minutes")
    result = tailor("up", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert result.output.startswith("error: TAILOR_START_TIMEOUT_SECONDS is not usable")
    assert "5 minutes" not in result.output


def test_a_server_that_is_not_there_is_one_sentence(tailor, monkeypatch) -> None:
    monkeypatch.setenv("TAILOR_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("TAILOR_API_KEY", "tl-admin-x")
    result = tailor("tenant", "create", "x")
    assert result.exit_code == 1
    assert result.output.startswith("error: cannot reach http://127.0.0.1:9/admin/tenants")
    assert "Traceback" not in result.output
