"""Base models as people have them: from a folder, the hub or a GGUF file; described or refused."""

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError

from deploy.local import add_model
from deploy.local.add_model import Wanted, default_name, install, trained_on, uninstall
from deploy.local.errors import StackError
from shared.catalog import DESCRIPTION, BaseModelEntry, HubSource, load_catalog
from shared.storage import write_manifest

SHIPPED = load_catalog().get("smollm2-135m-instruct")
COMMIT = "c0ffee" * 6 + "c0ff"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"


@pytest.fixture(autouse=True)
def inspected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for the process that looks at the model; test_inspect_model.py has the real one."""

    def describe(command: list[str], _failure: str) -> str:
        found = SHIPPED.model_dump(exclude={"source", "description"})
        folder = Path(command[-1])
        weights = {path.name: "0" * 64 for path in folder.glob("*.safetensors")}
        return json.dumps(found | {"name": folder.name, "weights": weights})

    monkeypatch.setattr(add_model, "run", describe)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a model, among other things."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"a")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"b")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (folder / "modeling.py").write_text("raise SystemExit")
    return folder


def added(source: Path | str, tmp_path: Path, **options: Any) -> BaseModelEntry:
    return install(Wanted(str(source), "mine", **options), tmp_path / "models")


def test_a_folder_is_copied_without_pickles_and_code_and_describes_itself(
    own: Path, tmp_path: Path
) -> None:
    entry = added(own, tmp_path)
    folder = tmp_path / "models" / "mine"
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        DESCRIPTION,
    }
    assert load_catalog(tmp_path / "models").get("mine") == entry
    assert (folder / "chat_template.jinja").read_text() == TEMPLATE
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


def test_a_template_of_ones_own_goes_before_the_models(own: Path, tmp_path: Path) -> None:
    (tmp_path / "other.jinja").write_text("other")
    added(own, tmp_path, chat_template=tmp_path / "other.jinja")
    assert (tmp_path / "models/mine/chat_template.jinja").read_text() == "other"


def _pickled(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink()


def _with_code(folder: Path) -> None:
    (folder / "config.json").write_text('{"auto_map": {"AutoModelForCausalLM": "modeling.Own"}}')


def _without_template(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{}")


def _without_a_shard(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def _damaged(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_pickled, "pickled ones .* are not read"),
        (_with_code, "code of its own"),
        (_without_template, "no chat template.*--chat-template"),
        (_without_a_shard, "00002-of-00002.safetensors is missing"),
        (_damaged, "config.json is not JSON"),
    ],
)
def test_what_cannot_be_used_is_a_sentence_and_leaves_nothing(
    own: Path, tmp_path: Path, harm: Callable[[Path], None], words: str
) -> None:
    harm(own)
    with pytest.raises(StackError, match=words):
        added(own, tmp_path)
    assert list((tmp_path / "models").iterdir()) == []


def test_what_inspection_refuses_leaves_nothing(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(add_model, "run", lambda *_: '{"refused": "vLLM does not know it"}')
    with pytest.raises(StackError, match="vLLM does not know it"):
        added(own, tmp_path)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("source", ["no-such-thing", "/no/such/folder", "weights.bin", "a/b/c"])
def test_a_source_of_no_kind_says_which_there_are(tmp_path: Path, source: str) -> None:
    with pytest.raises(StackError, match="no folder, no GGUF file and no model of the hub"):
        added(source, tmp_path)


def test_a_disk_that_is_too_small_is_seen_first(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StackError, match=r"has 1\.0 GB"):
        added(own, tmp_path)


def test_a_name_is_taken_once(own: Path, tmp_path: Path) -> None:
    added(own, tmp_path)
    with pytest.raises(StackError, match="--name"):
        added(own, tmp_path)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b-instruct"),
        ("Qwen/Qwen2.5-0.5B-Instruct@main", "qwen2.5-0.5b-instruct"),
        ("My Model/", "my-model"),
        ("down/../qwen_Q4_K_M.gguf", "qwen_q4_k_m"),
        ("down/..", "working"),
    ],
)
def test_a_model_is_called_as_its_source_unless_told_otherwise(
    source: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = tmp_path / "Working"
    (working / "down").mkdir(parents=True)
    (working / "My Model").mkdir()
    (working / "qwen_Q4_K_M.gguf").touch()
    monkeypatch.chdir(working)
    assert default_name(source) == name


@pytest.mark.parametrize("name", ["", "Ours", "../x", "a/b", ".hidden", "x" * 101])
def test_a_name_that_is_none_is_refused_before_anything_is_fetched(
    name: str, own: Path, tmp_path: Path
) -> None:
    with pytest.raises(StackError, match="--name gives one"):
        install(Wanted(str(own), name), tmp_path / "models")
    assert not (tmp_path / "models").exists()


class Hub:
    """Stands for the hub, which no test reaches: it has ``folder`` as COMMIT."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str | None] = []
        self.failure: Exception | None = None

    def model_info(self, _repository: str, *, revision: str | None, **_: Any) -> SimpleNamespace:
        self.asked.append(revision)
        files = [SimpleNamespace(rfilename=path.name, size=1) for path in self.folder.iterdir()]
        return SimpleNamespace(sha=COMMIT, siblings=files)

    def snapshot_download(self, _: str, *, revision: str, local_dir: Path, **__: Any) -> None:
        assert revision == COMMIT
        local_dir.mkdir(parents=True, exist_ok=True)
        (local_dir / "config.json").write_text("{}")
        if self.failure:
            raise self.failure
        for path in self.folder.iterdir():
            shutil.copyfile(path, local_dir / path.name)


@pytest.fixture
def hub(own: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(own)
    monkeypatch.setattr(add_model, "HfApi", lambda: hub)
    monkeypatch.setattr(add_model, "snapshot_download", hub.snapshot_download)
    return hub


def test_a_hub_model_is_pinned_to_the_commit_it_was_fetched_at(hub: Hub, tmp_path: Path) -> None:
    entry = added("owner/name@v1", tmp_path)
    assert entry.source == HubSource(kind="hub", repository="owner/name", revision=COMMIT)
    assert hub.asked == ["v1"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["mine"]


def test_a_download_that_is_cut_off_is_kept_and_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    hub.failure = LocalEntryNotFoundError("the connection was closed")
    with pytest.raises(StackError, match="is kept for the next try"):
        added("owner/name", tmp_path)
    (partial,) = (tmp_path / "models").iterdir()
    assert [path.name for path in partial.iterdir()] == ["config.json"]
    hub.failure = None
    (hub.folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(StackError, match="no chat template"):
        added("owner/name", tmp_path)
    assert (partial / "model-00001-of-00002.safetensors").exists()
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    assert added("owner/name", tmp_path, chat_template=tmp_path / "own.jinja").name == "mine"
    assert not partial.exists()


def test_a_hub_that_cannot_be_reached_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = HfApi(endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(add_model, "HfApi", lambda: nobody)
    with pytest.raises(StackError, match="owner/name could not be fetched"):
        added("owner/name", tmp_path)


def test_a_model_is_removed_and_the_adapters_trained_on_it_are_counted(
    own: Path, tmp_path: Path
) -> None:
    entry = added(own, tmp_path)
    adapter = tmp_path / "data/store/adapters/ad_1"
    adapter.mkdir(parents=True)
    assert trained_on(entry, tmp_path / "data") == 0
    write_manifest(adapter, {"base_sha256": entry.base_sha256})
    assert trained_on(entry, tmp_path / "data") == 1
    uninstall(entry, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []
    with pytest.raises(StackError, match="belongs to Tailor"):
        uninstall(SHIPPED, tmp_path / "models")
