"""A folder of the store is whole or absent, and a changed byte is found."""

import json

import pytest

from shared.storage import MANIFEST, CorruptArtifact, LocalStore, publish_folder, verify_manifest


@pytest.fixture
def folder(tmp_path):
    target = tmp_path / "adapters" / "ad_1"
    with publish_folder(target, {"会社": "かもめ"}) as temporary:
        (temporary / "weights.bin").write_bytes(b"1234")
        (temporary / "deep").mkdir()
        (temporary / "deep" / "config.json").write_text("{}")
    return target


def test_published_folder_verifies_and_returns_its_meta(folder):
    assert verify_manifest(folder) == {"会社": "かもめ"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "weights.bin").write_bytes(b"1235"),
        lambda folder: (folder / "weights.bin").write_bytes(b"12345"),
        lambda folder: (folder / "weights.bin").unlink(),
        lambda folder: (folder / "extra.bin").write_bytes(b""),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_text("{"),
        lambda folder: (folder / MANIFEST).write_text(json.dumps({"files": {}})),
    ],
    ids=["byte", "length", "missing", "extra", "no manifest", "cut manifest", "odd manifest"],
)
def test_damage_is_found(folder, damage):
    damage(folder)
    with pytest.raises(CorruptArtifact):
        verify_manifest(folder)


def test_an_exception_while_filling_leaves_nothing(tmp_path):
    def fill_half() -> None:
        with publish_folder(tmp_path / "a", {}) as temporary:
            (temporary / "half").write_bytes(b"1")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk"):
        fill_half()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".tmp-x", "/etc"])
def test_a_folder_name_that_is_not_an_id_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="one of our ids"):
        LocalStore(tmp_path).adapter(name)
