"""``python -m services.api``: serve the API until SIGTERM."""

import uvicorn

from services.api.app import create_app
from services.api.server import listening, server_config
from services.api.settings import ApiSettings
from shared.telemetry import configure_logging


def main() -> None:
    """Read the settings and serve."""
    settings = ApiSettings()
    configure_logging("api", settings.log_level)
    config = server_config(
        create_app(settings), settings, host=settings.api_host, port=settings.api_port
    )
    uvicorn.Server(config).run(sockets=listening(settings))


if __name__ == "__main__":
    main()
