"""Which URLs are the administrator's, and where they are answered.

With ``TAILOR_ADMIN_PORT`` a second port answers them and nothing else; the public port then knows
nothing of them. Both are sockets of one server: the one that a request came in by decides.
"""

from starlette.types import Scope


def is_admin(path: str) -> bool:
    """Say whether a path is the administrator's."""
    return path in {"/metrics", "/admin"} or path.startswith("/admin/")


def is_elsewhere(scope: Scope, admin_port: int | None) -> bool:
    """Say whether a request came to the other port than the one that answers its path."""
    if admin_port is None:
        return False
    _host, port = scope.get("server") or (None, None)
    return is_admin(scope["path"]) != (port == admin_port)
