import json
from pathlib import Path

import pytest

from shared.catalog import DESCRIPTION, load_catalog
from shared.storage import write_manifest

SHIPPED = load_catalog().get("smollm2-135m-instruct")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with one added model, of whose files only the description matters."""
    folder = tmp_path / "models" / "ours"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    entry = SHIPPED.model_copy(update={"name": "ours"})
    (folder / DESCRIPTION).write_text(entry.model_dump_json())
    return folder.parent


def test_list_says_what_is_trained_and_what_is_not_installed(tailor, models: Path) -> None:
    result = tailor("model", "list", "--models-dir", str(models))
    assert result.exit_code == 0
    lines = {line.split()[1]: line for line in result.output.splitlines() if "Llama" in line}
    assert "20 to 29" in lines["ours"]
    assert "make setup" in lines[SHIPPED.name]
    assert "tailor model check ours" in lines["ours"]


def test_show_prints_all_that_is_known(tailor, models: Path) -> None:
    result = tailor("model", "show", "ours", "--models-dir", str(models))
    assert json.loads(result.output)["profile"]["first_trained_layer"] == 20


def test_a_model_that_adapters_were_trained_on_is_not_removed_by_accident(
    tailor, models: Path, tmp_path: Path
) -> None:
    adapter = tmp_path / "data/store/adapters/ad_1"
    adapter.mkdir(parents=True)
    write_manifest(adapter, {"base_sha256": SHIPPED.base_sha256})
    options = ["--models-dir", str(models), "--data-dir", str(tmp_path / "data")]
    refused = tailor("model", "remove", "ours", *options)
    assert refused.exit_code == 1
    assert "1 model(s)" in refused.output
    assert tailor("model", "remove", "ours", *options, "--force").exit_code == 0
    assert list(models.iterdir()) == []


def test_a_wrong_description_names_file_and_field(tailor, models: Path) -> None:
    path = models / "ours" / DESCRIPTION
    path.write_text(path.read_text().replace('"max_rank":16', '"max_rank":17'))
    result = tailor("model", "list", "--models-dir", str(models))
    assert result.exit_code == 1
    assert "max_rank" in result.output
