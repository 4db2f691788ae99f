"""The two clients of the commands: OpenAI's own, and ours for the admin routes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from cli.connection import Connection, find_admin_connection, find_connection
from cli.errors import CommandFailed, message_of

if TYPE_CHECKING:
    from openai import OpenAI


def openai_client(data_dir: Path | None) -> "OpenAI":
    """Return OpenAI's client with the tenant's key from the environment."""
    return client_of(find_connection(data_dir))


def client_of(at: Connection) -> "OpenAI":
    """Return OpenAI's client for a connection."""
    # Slow to import; `tailor up` needs none of it.
    from openai import DefaultHttpxClient, OpenAI  # noqa: PLC0415

    return OpenAI(
        base_url=at.base_url,
        api_key=at.api_key,
        max_retries=5,
        http_client=DefaultHttpxClient(trust_env=not at.is_on_this_machine),
    )


def served_base(client: "OpenAI") -> str:
    """Return the base model that the installation serves; raises CommandFailed."""
    for model in client.models.list():
        if not model.id.startswith("ft:"):
            return model.id
    raise CommandFailed("the installation serves no base model; name one")


class AdminClient:
    """Calls the admin routes with the administrator's key."""

    def __init__(self, at: Connection) -> None:
        headers = {"Authorization": f"Bearer {at.api_key}"}
        self._http = httpx.Client(
            base_url=at.root_url,
            headers=headers,
            timeout=30,
            trust_env=not at.is_on_this_machine,
        )

    @classmethod
    def connect(cls, data_dir: Path | None) -> Self:
        """Return a client of the stack that ``data_dir`` or the environment names."""
        return cls(find_admin_connection(data_dir))

    def create_tenant(self, name: str) -> dict[str, Any]:
        """Create a tenant; its first key is ``api_key``."""
        return self._ask("POST", "/admin/tenants", {"name": name})

    def limits(self, tenant_id: str) -> dict[str, Any]:
        """Return what a tenant may use."""
        return self._ask("GET", f"/admin/tenants/{tenant_id}/limits")

    def set_limits(self, tenant_id: str, own: dict[str, int]) -> dict[str, Any]:
        """Replace a tenant's own limits; return what it may use now."""
        return self._ask("PUT", f"/admin/tenants/{tenant_id}/limits", own)

    def change_limits(self, tenant_id: str, named: dict[str, int | None]) -> dict[str, Any]:
        """Change the limits that are named, None takes one away; return what it may use now."""
        return self._ask("PATCH", f"/admin/tenants/{tenant_id}/limits", named)

    def create_key(self, tenant_id: str) -> dict[str, Any]:
        """Create a further key of a tenant: ``id``, ``api_key`` …."""
        return self._ask("POST", f"/admin/tenants/{tenant_id}/keys")

    def revoke_key(self, key_id: str) -> None:
        """Close a key for ever."""
        self._ask("DELETE", f"/admin/keys/{key_id}")

    def keys(self, tenant_id: str) -> list[dict[str, Any]]:
        """Return a tenant's newest keys, newest first, without their secrets."""
        return list(self._ask("GET", f"/admin/tenants/{tenant_id}/keys")["data"])

    def jobs(
        self, tenant_id: str | None, states: Sequence[str], limit: int
    ) -> list[dict[str, Any]]:
        """Return the newest jobs, of one tenant or in some states where these are named."""
        wanted = {"tenant": tenant_id, "state": list(states), "limit": limit}
        query = {name: value for name, value in wanted.items() if value}
        return list(self._ask("GET", "/admin/jobs", query=query)["data"])

    def cancel_job(self, job_id: str) -> dict[str, Any]:
        """Cancel any tenant's job; return it."""
        return self._ask("POST", f"/admin/jobs/{job_id}/cancel")

    def resume_job(self, job_id: str) -> dict[str, Any]:
        """Let any tenant's paused job go on; return it."""
        return self._ask("POST", f"/admin/jobs/{job_id}/resume")

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        response = self._http.request(method, path, json=body, params=query)
        if response.is_error:
            raise CommandFailed(message_of(response))
        return dict(response.json()) if response.content else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()
