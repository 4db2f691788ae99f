"""``python -m services.api``: serve the API until SIGTERM."""

import uvicorn

from services.api.app import create_app
from services.api.settings import ApiSettings
from shared.telemetry import configure_logging


def main() -> None:
    """Read the settings and serve."""
    settings = ApiSettings()
    configure_logging("api", settings.log_level)
    uvicorn.run(
        create_app(settings),
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        # Longer than clients keep an idle connection, so that none is closed under a request.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
