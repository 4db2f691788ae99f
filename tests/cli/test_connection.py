import json
from pathlib import Path

import pytest

from cli.connection import NoConnection, find_admin_connection, find_connection


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TAILOR_BASE_URL", raising=False)
    monkeypatch.delenv("TAILOR_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)


def _stack_in(folder: Path) -> None:
    (folder / "secrets").mkdir(parents=True)
    (folder / "secrets" / "admin_key").write_text("tl-admin-local\n")
    (folder / "endpoint.json").write_text(json.dumps({"base_url": "http://127.0.0.1:8123/v1"}))


def test_a_folder_gives_address_and_admin_key(tmp_path: Path) -> None:
    _stack_in(tmp_path / "stack")
    at = find_admin_connection(tmp_path / "stack")
    assert (at.base_url, at.api_key) == ("http://127.0.0.1:8123/v1", "tl-admin-local")
    assert at.root_url == "http://127.0.0.1:8123"


def test_a_named_folder_goes_before_the_environment(tmp_path, monkeypatch) -> None:
    _stack_in(tmp_path / "stack")
    monkeypatch.setenv("TAILOR_BASE_URL", "https://tailor.example/v1")
    monkeypatch.setenv("TAILOR_API_KEY", "sk-tenant")
    at = find_connection(tmp_path / "stack")
    assert (at.base_url, at.api_key) == ("http://127.0.0.1:8123/v1", "sk-tenant")


def test_the_folders_admin_key_never_goes_to_an_address_of_the_environment(
    tmp_path, monkeypatch
) -> None:
    _stack_in(tmp_path / ".tailor")
    monkeypatch.setenv("TAILOR_BASE_URL", "https://tailor.example/v1")
    with pytest.raises(NoConnection, match="TAILOR_API_KEY"):
        find_admin_connection()
    monkeypatch.setenv("TAILOR_API_KEY", "tl-admin-distant")
    assert find_admin_connection().api_key == "tl-admin-distant"


def test_without_a_stack_the_sentence_says_what_to_do() -> None:
    with pytest.raises(NoConnection, match="tailor up"):
        find_connection()


def test_without_a_tenants_key_the_sentence_says_where_it_comes_from(tmp_path: Path) -> None:
    _stack_in(tmp_path / ".tailor")
    with pytest.raises(NoConnection, match="tailor tenant create"):
        find_connection()
