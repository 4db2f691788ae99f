"""``tailor model add``: a base model from the hub, a folder or a GGUF file, described and proven.

Only safetensors and GGUF are read, and no code that comes with a model is run.
"""

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from deploy.local.base_model import convert, run, staged
from deploy.local.errors import StackError
from shared.catalog import (
    DESCRIPTION,
    NAME,
    BaseModelEntry,
    HubSource,
    LocalSource,
    Proof,
    load_catalog,
    read_description,
)
from shared.storage import MANIFEST

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
FILES = ("*.json", "*.jinja", "merges.txt", "vocab.*", "model*.safetensors")
"""What is taken of a model's files; pickles, code and other forms of the weights stay behind."""
SPARE_BYTES = 1 << 30
"""Stays free on the disk."""
BF16_FROM_GGUF = 4
"""A converted file is at most so many times as large as a GGUF of four bits a weight."""


@dataclass(frozen=True)
class Wanted:
    """What the user asks for."""

    source: str
    name: str
    chat_template: Path | None = None


def default_name(source: str) -> str:
    """Return the name of a model from where it comes from."""
    path = Path(source)
    found = path.resolve().name if path.exists() else source.partition("@")[0].rpartition("/")[2]
    last = found.removesuffix(".gguf")
    return re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._")


def install(wanted: Wanted, models_dir: Path) -> BaseModelEntry:
    """Install a base model below ``models_dir`` and return its description; raises StackError."""
    if not re.fullmatch(NAME, wanted.name):
        raise StackError(
            f"{wanted.name!r} is no name for a base model: small letters, digits, dots, dashes; "
            "--name gives one"
        )
    if wanted.name in load_catalog(models_dir):
        raise StackError(f"there is a base model {wanted.name} already; --name gives another name")
    with staged(models_dir, wanted.name) as folder:
        source = _fetch(wanted.source, models_dir, folder)
        _refuse_code(folder)
        _refuse_other_weights(folder)
        if wanted.chat_template:
            shutil.copyfile(wanted.chat_template, folder / "chat_template.jinja")
        _write_template(folder)
        found = run(
            [sys.executable, "-m", "deploy.local.inspect_model", str(folder)],
            f"{wanted.source} cannot be used",
        )
        described = json.loads(found.splitlines()[-1])
        if "refused" in described:
            raise StackError(f"{wanted.source}: {described['refused']}")
        described |= {"source": source.model_dump(), "description": f"{wanted.source}, added here."}
        (folder / DESCRIPTION).write_text(json.dumps(described, indent=1) + "\n")
        entry = read_description(folder / DESCRIPTION)
    if isinstance(source, HubSource):
        for partial in models_dir.glob(_partial(source.repository, "*")):
            shutil.rmtree(partial)
    return entry


def _fetch(source: str, models_dir: Path, folder: Path) -> HubSource | LocalSource:
    """Lay the model's files into ``folder``."""
    path = Path(source)
    if path.is_dir():
        _need(sum(file.stat().st_size for file in _files(path)), models_dir)
        folder.mkdir()
        for file in _files(path):
            shutil.copyfile(file, folder / file.name)
        return LocalSource(kind="folder", path=str(path.resolve()))
    if path.is_file() and path.suffix == ".gguf":
        _need(BF16_FROM_GGUF * path.stat().st_size, models_dir)
        convert(path.resolve(), folder)
        return LocalSource(kind="gguf", path=str(path.resolve()))
    if path.exists() or not HUB_ID.fullmatch(source):
        raise StackError(
            f"{source} is no folder, no GGUF file and no model of the hub (OWNER/NAME[@REVISION])"
        )
    return _from_hub(source, models_dir, folder)


def _from_hub(source: str, models_dir: Path, folder: Path) -> HubSource:
    """Download; what is cut off, or refused afterwards, is not fetched again by the next try."""
    repository, _, revision = source.partition("@")
    try:
        found = HfApi().model_info(repository, revision=revision or None, files_metadata=True)
        sizes = [file.size or 0 for file in found.siblings or () if _is_taken(file.rfilename)]
        _need(sum(sizes), models_dir)
        partial = models_dir / _partial(repository, str(found.sha))
        snapshot_download(
            repository, revision=found.sha, local_dir=partial, allow_patterns=list(FILES)
        )
    except GatedRepoError as error:
        raise StackError(
            f"{repository} is gated: accept its terms on the hub, then set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise StackError(f"{repository} has no revision {revision}") from error
    except RepositoryNotFoundError as error:
        raise StackError(f"the hub has no model {repository}, or hides it from you") from error
    except StackError:
        raise
    except Exception as error:  # its client also lets through what its transport raises
        raise StackError(
            f"{repository} could not be fetched from the hub ({type(error).__name__}); what is "
            "there of it is kept for the next try"
        ) from error
    folder.mkdir()
    for file in _files(partial):
        os.link(file, folder / file.name)
    assert found.sha  # noqa: S101  the hub always tells it
    return HubSource(kind="hub", repository=repository, revision=found.sha)


def _partial(repository: str, commit: str) -> str:
    return f".download-{repository.replace('/', '--')}@{commit}"


def _is_taken(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in FILES)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if _is_taken(path.name)]


def _need(size: int, models_dir: Path) -> None:
    free = shutil.disk_usage(models_dir).free
    if size + SPARE_BYTES > free:
        raise StackError(
            f"it needs {size / 1e9:.1f} GB and 1 GB to spare; {models_dir} has {free / 1e9:.1f} GB"
        )


def _refuse_code(folder: Path) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in _read(folder / name):
            raise StackError(f"{name} asks for code of its own (auto_map), which is not run")


def _refuse_other_weights(folder: Path) -> None:
    present = {path.name for path in folder.glob("*.safetensors")}
    if not present:
        raise StackError(
            "it has no safetensors weights; pickled ones (.bin, .pt) are not read: convert them"
        )
    index = folder / "model.safetensors.index.json"
    if index.is_file() and (missing := set(_read(index).get("weight_map", {}).values()) - present):
        raise StackError(f"{min(missing)} is missing, which {index.name} names")


def _write_template(folder: Path) -> None:
    """Put the chat template into a file of its own, where it is part of the tokenizer's."""
    target = folder / "chat_template.jinja"
    if target.is_file():
        return
    template = _read(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # of several, the one for plain chats
        template = next((t["template"] for t in template if t["name"] == "default"), None)
    if not isinstance(template, str):
        raise StackError(
            "it has no chat template (a model that was never taught to chat?); "
            "--chat-template FILE gives one"
        )
    target.write_text(template, encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise StackError(f"{path.name} is missing") from error
    except ValueError as error:
        raise StackError(f"{path.name} is not JSON") from error
    return found if isinstance(found, dict) else {}


def check(entry: BaseModelEntry, models_dir: Path) -> Proof:
    """Prove that a base model trains and serves; raises StackError with what does not agree."""
    command = [sys.executable, "-m", "services.worker.prove", entry.name, str(models_dir)]
    found = json.loads(run(command, f"{entry.name} could not be checked").splitlines()[-1])
    if "refused" in found:
        raise StackError(f"{entry.name} is not proven: {found['refused']}")
    return Proof.model_validate(found)


def trained_on(entry: BaseModelEntry, data_dir: Path) -> int:
    """Count the adapters below a stack's folder that were trained on these weights."""
    manifests = (data_dir / "store" / "adapters").glob(f"*/{MANIFEST}")
    metas = (_read(path).get("meta", {}) for path in manifests)
    return sum(meta.get("base_sha256") == entry.base_sha256 for meta in metas)


def uninstall(entry: BaseModelEntry, models_dir: Path) -> None:
    """Remove the folder of a model that was added; it is gone at once, or not at all."""
    folder = entry.folder(models_dir)
    if not (folder / DESCRIPTION).is_file():
        raise StackError(f"{entry.name} was not added here; it belongs to Tailor itself")
    leaving = folder.with_name(f".{entry.name}-removed")
    folder.rename(leaving)
    shutil.rmtree(leaving)
