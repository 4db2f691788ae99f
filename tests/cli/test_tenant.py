import json

from tests.cli.conftest import Reply, error_reply

CREATED = Reply(
    {
        "id": "org-1",
        "object": "tenant",
        "name": "陶芸窯",
        "created_at": 1,
        "api_key": "sk-secret",
        "api_key_id": "key_1",
    },
    201,
)


def test_create_prints_the_key(api, tailor) -> None:
    api.on("POST /admin/tenants", CREATED)
    result = tailor("tenant", "create", "陶芸窯")
    assert result.exit_code == 0
    assert result.output.count("sk-secret") == 1
    assert "org-1" in result.output
    assert api.requests[0].json == {"name": "陶芸窯"}


def test_a_name_that_looks_like_markup_is_shown_as_it_is(api, tailor) -> None:
    assert isinstance(CREATED.body, dict)
    api.on("POST /admin/tenants", Reply(CREATED.body | {"name": "A [/x] :door:"}, 201))
    result = tailor("tenant", "create", "A [/x] :door:")
    assert "Tenant A [/x] :door: (org-1)" in result.output
    assert "sk-secret" in result.output


def test_create_as_json_is_one_object(api, tailor) -> None:
    api.on("POST /admin/tenants", CREATED)
    assert json.loads(tailor("tenant", "create", "陶芸窯", "--json").output) == CREATED.body


def test_limits_are_shown_changed_by_name_and_taken_back(api, tailor) -> None:
    api.on("GET /admin/tenants/org-1/limits", Reply({"queued_jobs": 100}))
    api.on("PATCH /admin/tenants/org-1/limits", Reply({"queued_jobs": 3}))
    api.on("PUT /admin/tenants/org-1/limits", Reply({"queued_jobs": 100}))
    assert "queued_jobs = 100" in tailor("tenant", "limits", "org-1").output
    changes = ("queued_jobs=3", "stored_bytes=DEFAULT")
    assert "queued_jobs = 3" in tailor("tenant", "limits", "org-1", *changes).output
    tailor("tenant", "limits", "org-1", "DEFAULT")
    assert [(request.method, request.json) for request in api.requests[1:]] == [
        ("PATCH", {"queued_jobs": 3, "stored_bytes": None}),
        ("PUT", {}),
    ]
    assert "NAME=NUMBER" in tailor("tenant", "limits", "org-1", "many").output


def test_create_for_a_shell_prints_an_export_line(api, tailor) -> None:
    api.on("POST /admin/tenants", CREATED)
    result = tailor("tenant", "create", "x", "--export")
    assert result.output == "export TAILOR_API_KEY=sk-secret\n"


def test_a_refusal_is_one_sentence_and_no_traceback(api, tailor) -> None:
    api.on("POST /admin/tenants", error_reply(409, "A tenant of this name exists."))
    result = tailor("tenant", "create", "x")
    assert result.exit_code == 1
    assert result.output == "error: A tenant of this name exists.\n"


def test_a_key_is_created_and_revoked(api, tailor) -> None:
    api.on("POST /admin/tenants/org-1/keys", Reply({"id": "key_2", "api_key": "sk-2"}, 201))
    api.on("DELETE /admin/keys/key_2", Reply({"id": "key_2"}))
    assert "sk-2" in tailor("key", "create", "org-1").output
    assert tailor("key", "revoke", "key_2").output == "key_2 is revoked\n"


def test_keys_are_listed_with_what_tells_them_apart(api, tailor) -> None:
    keys = [{"id": f"key_{n}", "hint": f"ab{n}", "created_at": 0, "revoked_at": n} for n in (1, 0)]
    api.on("GET /admin/tenants/org-1/keys", Reply({"data": keys}))
    lines = tailor("key", "list", "org-1").output.splitlines()
    assert any("key_1" in line and "ab1" in line and line.count("1970") == 2 for line in lines)
