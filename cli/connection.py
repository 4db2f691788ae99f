"""Where the API is and with which key: a data folder that is named, the environment, ``.tailor/``.

``tailor up`` writes its address and the administrator's key into its data folder. That key goes to
the stack of that folder only, never to an address from the environment.
"""

import json
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from shared.errors import TailorError
from shared.settings import TailorSettings

DEFAULT_DATA_DIR = Path(".tailor")


class ConnectionSettings(TailorSettings):
    """What the environment says."""

    base_url: str | None = None
    """With the version, ``http://127.0.0.1:8000/v1``."""
    api_key: SecretStr | None = None


class NoConnection(TailorError):
    """There is no stack in the data folder and the environment names none."""


@dataclass(frozen=True)
class Connection:
    """An API and a key for it."""

    base_url: str
    """With the version, ``http://127.0.0.1:8000/v1``."""
    api_key: str

    @property
    def root_url(self) -> str:
        """The server without the version, for ``/readyz`` and the like."""
        return self.base_url.removesuffix("/v1")

    @property
    def is_on_this_machine(self) -> bool:
        """Say whether requests stay here: then no proxy of the environment must see them."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def find_connection(data_dir: Path | None = None) -> Connection:
    """Return the API and the key of the environment: a tenant's.

    Raises NoConnection with a sentence for the user.
    """
    settings = ConnectionSettings()
    base_url = _base_url(data_dir, settings)
    if settings.api_key is None:
        raise NoConnection(
            "No API key: set TAILOR_API_KEY to one that `tailor tenant create` printed."
        )
    return Connection(base_url, settings.api_key.get_secret_value())


def find_admin_connection(data_dir: Path | None = None) -> Connection:
    """Return the API and the administrator's key: the folder's, or (distant API) the environment's.

    Raises NoConnection with a sentence for the user.
    """
    settings = ConnectionSettings()
    base_url = _base_url(data_dir, settings)
    if data_dir is None and settings.base_url is not None:
        return find_connection()
    return Connection(base_url, _admin_key(data_dir or DEFAULT_DATA_DIR))


def _base_url(data_dir: Path | None, settings: ConnectionSettings) -> str:
    if data_dir is None and settings.base_url is not None:
        return settings.base_url
    return _running_stack(data_dir or DEFAULT_DATA_DIR)


def _running_stack(data_dir: Path) -> str:
    try:
        endpoint = json.loads((data_dir / "endpoint.json").read_bytes())
    except FileNotFoundError:
        raise NoConnection(
            f"No stack is running in {data_dir}: start one with `tailor up`,"
            " or set TAILOR_BASE_URL and TAILOR_API_KEY."
        ) from None
    return str(endpoint["base_url"])


def _admin_key(data_dir: Path) -> str:
    try:
        return (data_dir / "secrets" / "admin_key").read_text().strip()
    except FileNotFoundError:
        raise NoConnection(f"No key in {data_dir}/secrets: set TAILOR_API_KEY.") from None
    except PermissionError:
        raise NoConnection(f"The key in {data_dir}/secrets belongs to another user.") from None
