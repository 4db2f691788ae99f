"""``python -m services.inference``: serve the configured base model and its adapters."""

import signal
import subprocess
import sys
import threading

from services.inference.registration import Registration, serves
from services.inference.serve import serve
from services.inference.settings import InferenceSettings
from shared.catalog import load_catalog
from shared.telemetry import configure_logging


def main() -> None:
    """Read the settings, check the weights, and serve until SIGTERM or SIGINT."""
    settings = InferenceSettings()
    configure_logging("inference", settings.log_level)
    entry = load_catalog(settings.models_dir).get(settings.inference_base_model)
    if not entry.weights_intact(settings.models_dir):
        sys.exit(f"the weights of {entry.name} in {settings.models_dir} are missing or damaged")
    settings.inference_state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    folders = (str(entry.folder(settings.models_dir)), str(settings.chat_folder))
    subprocess.run([sys.executable, "-m", "services.inference.chat_files", *folders], check=True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    registration = Registration(
        settings.inference_database_url, serves(settings, entry), settings.inference_beat_seconds
    )
    serve(settings, entry, registration, stop)


if __name__ == "__main__":
    main()
