"""What a process that is to serve checks before it starts anything."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.services.inference.server import BASE_MODEL, REPOSITORY, Server


@pytest.mark.slow
def test_swapped_weights_are_not_served(tmp_path: Path) -> None:
    base = tmp_path / "models" / BASE_MODEL
    base.mkdir(parents=True)
    (base / "model.safetensors").write_bytes(b"others")
    server = Server(tmp_path, tmp_path / "store", tmp_path / "models")
    done = subprocess.run(
        [sys.executable, "-m", "services.inference"],
        cwd=REPOSITORY,
        env=server.environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"the weights of {BASE_MODEL}" in done.stderr
    assert "missing or damaged" in done.stderr
    assert not server.state_dir.exists()
