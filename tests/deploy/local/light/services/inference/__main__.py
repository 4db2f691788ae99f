"""An inference service without vLLM: ready at once, with an engine process in its own group."""

import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from shared.processes import end_group, end_recorded_group, group_members, record_group


class Ready(BaseHTTPRequestHandler):
    """Answers 200 to everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def main() -> None:
    if os.environ.get("LIGHT_INFERENCE") == "broken":
        sys.exit("libnuma.so.1: 見つかりません")
    state_dir = Path(os.environ["TAILOR_INFERENCE_STATE_DIR"])
    end_recorded_group(state_dir)
    engine = subprocess.Popen(["sleep", "600"], start_new_session=True)
    while not group_members(engine.pid):
        time.sleep(0.01)
    record_group(state_dir, engine.pid, group_members(engine.pid))
    server = HTTPServer(("127.0.0.1", int(os.environ["TAILOR_INFERENCE_PORT"])), Ready)
    try:
        server.serve_forever()
    finally:
        end_group(engine.pid)


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
