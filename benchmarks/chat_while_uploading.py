"""Chats' first token while a file of 200 MB is uploaded and checked, over that of idle times.

    export TAILOR_BASE_URL=http://127.0.0.1:8000/v1 TAILOR_API_KEY=tl-…
    python -m benchmarks.chat_while_uploading [--rows 100000]

On an idle running stack. One chat follows the other: first alone, then while the file is sent and
read row by row. Wanted is a ratio of at most 1.5.
"""

import argparse
import os
import statistics
import tempfile
import threading
from pathlib import Path

import httpx
import openai

from benchmarks.big_job import UPLOAD_SECONDS, upload, write_rows
from benchmarks.chat_while_training import Bench


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--chats", type=int, default=15, help="alone; then as many as fit")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--base-url", default=os.environ.get("TAILOR_BASE_URL"))
    parser.add_argument("--api-key", default=os.environ.get("TAILOR_API_KEY"))
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        openai.OpenAI(base_url=options.base_url, api_key=options.api_key) as client,
    ):
        path = Path(folder) / "train.jsonl"
        write_rows(path, options.rows)
        bench = Bench(client, options.model)
        bench.chat()  # the first one warms the engine up
        alone = [bench.chat()[0] for _ in range(options.chats)]
        during = chats_during_upload(bench, path)
    print(f"alone: {_figures(alone)}\nduring: {_figures(during)}")
    print(f"ratio of the medians: {statistics.median(during) / statistics.median(alone):.2f}")


def chats_during_upload(bench: Bench, path: Path) -> list[float]:
    """Upload a file and chat until it is there; return the chats' seconds to the first token.

    The last chat, which the upload's end cuts short, is left out where there are others.
    """
    sender = threading.Thread(target=_send, args=(bench.client, path))
    sender.start()
    seconds = []
    while sender.is_alive():
        seconds.append(bench.chat()[0])
    return seconds[:-1] or seconds


def _send(client: openai.OpenAI, path: Path) -> None:
    headers = {"authorization": f"Bearer {client.api_key}"}
    url = str(client.base_url).removesuffix("/").removesuffix("/v1")
    with httpx.Client(base_url=url, headers=headers, timeout=UPLOAD_SECONDS) as http:
        file_id = upload(http, path)
        http.delete(f"/v1/files/{file_id}").raise_for_status()


def _figures(seconds: list[float]) -> str:
    return f"{len(seconds)} chats, median {statistics.median(seconds):.2f} s"


if __name__ == "__main__":
    main()
