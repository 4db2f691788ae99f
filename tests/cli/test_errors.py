from cli.errors import CommandFailed, explain


def test_a_defect_is_not_explained_away() -> None:
    assert explain(ZeroDivisionError("x")) is None
    assert explain(CommandFailed("the disk is full")) == "the disk is full"


def test_a_server_that_is_not_there_is_one_sentence(tailor, monkeypatch) -> None:
    monkeypatch.setenv("TAILOR_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("TAILOR_API_KEY", "tl-admin-x")
    result = tailor("tenant", "create", "x")
    assert result.exit_code == 1
    assert result.output.startswith("error: cannot reach http://127.0.0.1:9/admin/tenants")
    assert "Traceback" not in result.output
