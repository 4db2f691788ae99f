"""``make setup``: from a bare Python 3.11 to a virtual environment and a base model.

Runs before anything is installed, so it needs the standard library only and parses on any Python 3.
The environment is exactly ``constraints.txt``, installed without resolving (``--no-deps``): vLLM's
torchvision, torchaudio and torchcodec are built for CUDA and break next to the CPU torch, so they
stay out. With ``TAILOR_ACCELERATOR=cuda`` it is exactly ``constraints-cuda.txt``, and stays that
until another is asked for. A stamp makes a second run a matter of milliseconds.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "tailor-setup.stamp"
LOCKS = {"cpu": ROOT / "constraints.txt", "cuda": ROOT / "constraints-cuda.txt"}
CHOICE = VENV / "tailor-accelerator"
MODELS = ROOT / ".models"
BASE_MODEL = "smollm2-135m-instruct"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
FREE_GIGABYTES = {"cpu": 8, "cuda": 20}
LEAST_GLIBC = (2, 28)


class SetUpFailed(Exception):
    """A step failed; the text says which and what to do."""


def main() -> None:
    """Check, then do what is not done yet."""
    try:
        if is_done():
            sys.stdout.write("set-up is complete\n")
            return
        lacking = missing()
        if lacking:
            raise SetUpFailed("This machine lacks " + join(lacking) + ".")
        set_up()
    except SetUpFailed as error:
        sys.exit("set-up: " + str(error))


def is_done() -> bool:
    """Say whether an earlier run finished with exactly these inputs."""
    weights = MODELS / BASE_MODEL / "model.safetensors"
    return STAMP.is_file() and STAMP.read_text() == fingerprint() and weights.is_file()


def accelerator() -> str:
    """Return what the environment is, or is to be, made for."""
    made_for = CHOICE.read_text() if CHOICE.is_file() else "cpu"
    asked = os.environ.get("TAILOR_ACCELERATOR") or made_for
    if asked not in LOCKS:
        raise SetUpFailed("ACCELERATOR is " + asked + "; it can be " + " or ".join(LOCKS) + ".")
    return asked


def lock() -> Path:
    """Return the file of the environment's packages."""
    return LOCKS[accelerator()]


def fingerprint() -> str:
    """Hash what the result depends on."""
    digest = hashlib.sha256(sys.version.encode())
    for path in (lock(), ROOT / "pyproject.toml", ROOT / "shared" / "catalog.toml"):
        digest.update(path.read_bytes())
    digest.update(str(ROOT).encode())
    return digest.hexdigest()


def missing() -> list[str]:
    """Return what this machine lacks, each as part of a sentence."""
    gigabytes = FREE_GIGABYTES[accelerator()]
    checks = [
        (
            platform.system() == "Linux" and platform.machine() == "x86_64",
            f"x86-64 Linux (this is {platform.system()} {platform.machine()})",
        ),
        (glibc() >= LEAST_GLIBC, "glibc 2.28 or newer"),
        (
            sys.version_info[:2] == (3, 11),
            f"Python 3.11 (not {platform.python_version()}; PYTHON=… names another)",
        ),
        (has_module("venv") and has_module("ensurepip"), "Python's venv (Debian: python3.11-venv)"),
        (shutil.which("git"), "git"),
        (has_library("libnuma.so.1"), "libnuma.so.1 (Debian: libnuma1)"),
        (has_avx2(), "a processor with AVX2"),
        (
            VENV.exists() or shutil.disk_usage(str(ROOT)).free > gigabytes * 10**9,
            f"{gigabytes} GB of free disk",
        ),
    ]
    return [what for holds, what in checks if not holds]


def set_up() -> None:
    """Make the environment, install the lock and this project, convert the base model."""
    step("virtual environment", make_environment)
    CHOICE.write_text(accelerator())
    step("torch", install_torch)
    step(f"packages of {lock().name} (two minutes)", install_packages)
    step("their byte code (a minute)", compile_packages)
    step("this project", install_project)
    step(f"base model {BASE_MODEL} (one minute)", install_base_model)
    STAMP.write_text(fingerprint())


def step(title: str, action: Callable[[], None]) -> None:
    """Run one step and say how long it took."""
    sys.stdout.write(f"set-up: {title} … ")
    sys.stdout.flush()
    began = time.monotonic()
    action()
    sys.stdout.write(f"{time.monotonic() - began:.0f} s\n")


def make_environment() -> None:
    """Create .venv, or keep one of the same Python."""
    if PYTHON.exists():
        found = subprocess.run([str(PYTHON), "-V"], stdout=subprocess.PIPE, check=False)
        if found.stdout.decode().strip() == "Python " + platform.python_version():
            return
    run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        "Remove .venv and run `make setup` again.",
    )


def install_torch() -> None:
    """Install the lock's torch; its CPU build is on PyTorch's own index where pip lacks it."""
    torch = next(line for line in lock().read_text().splitlines() if line.startswith("torch=="))
    try:
        pip("install", "--no-deps", "--no-compile", torch)
    except SetUpFailed:
        pip("install", "--no-deps", "--no-compile", "--extra-index-url", TORCH_INDEX, torch)


def install_packages() -> None:
    """Install every other package of the lock, and remove what it no longer names."""
    pip("install", "--no-deps", "--no-compile", "--requirement", str(lock()))
    extra = sorted(installed() - locked() - {"pip", "tailor"})
    if extra:
        pip("uninstall", "--yes", *extra)


def compile_packages() -> None:
    """Compile on all cores, what pip does on one.

    Left to the first import, it is done at every one where byte code cannot be written
    (PYTHONDONTWRITEBYTECODE, a folder of another user), which takes vLLM's three processes twelve
    seconds each. Its exit status counts files that no import reaches, for other Pythons; so it is
    not heeded.
    """
    command = [str(PYTHON), "-m", "compileall", "-q", "-j", "0", str(VENV / "lib")]
    subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=1800, check=False
    )


def locked() -> set[str]:
    """Return the names in the lock, in the form that pip compares them in."""
    lines = lock().read_text().splitlines()
    return {canonical(line.partition("==")[0]) for line in lines if line and line[0] != "#"}


def installed() -> set[str]:
    """Return the names of the environment's packages, in the same form."""
    program = "from importlib import metadata as m\nfor d in m.distributions(): print(d.name)"
    return {canonical(name) for name in run([str(PYTHON), "-c", program], "").split()}


def canonical(name: str) -> str:
    """Return a package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def install_project() -> None:
    """Make the project importable and its commands and vLLM plugin known."""
    pip("install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def install_base_model() -> None:
    """Convert the weights unless they are there."""
    run(
        [str(PYTHON), "-m", "deploy.local.base_model", BASE_MODEL, str(MODELS)],
        "Run `make setup` again; what is done is kept.",
    )


def pip(command: str, *arguments: str) -> None:
    """Run the environment's pip."""
    quiet = ["--quiet", "--disable-pip-version-check"]
    run(
        [str(PYTHON), "-m", "pip", command, *quiet, *arguments],
        "See that pip reaches its package index, then run `make setup` again.",
    )


def run(command: list[str], advice: str) -> str:
    """Run a command and return its words; where it fails, show the last ones and what to do."""
    done = subprocess.run(
        command,
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    words = done.stdout.decode(errors="replace").strip()
    if done.returncode:
        raise SetUpFailed(f"this step failed:\n{words[-1500:]}\n{advice}")
    return words


def glibc() -> tuple[int, ...]:
    """Return glibc's version as two numbers, (0, 0) where there is another C library."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        return (0, 0)
    return tuple(int(part) for part in text.split()[-1].split(".")[:2]) if text else (0, 0)


def has_module(name: str) -> bool:
    """Say whether Python ships the module (Debian splits some off)."""
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def has_library(name: str) -> bool:
    """Say whether the loader finds a shared library."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def has_avx2() -> bool:
    """Say whether the processor has AVX2."""
    try:
        return " avx2 " in Path("/proc/cpuinfo").read_text().replace("\n", " ")
    except OSError:
        return False


def join(items: list[str]) -> str:
    """Join parts of a sentence."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


if __name__ == "__main__":
    main()
