"""The rules of docs/architecture.md, read from the source: who may import whom."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("services", "shared", "cli", "deploy")
SERVICES = sorted(p.name for p in (ROOT / "services").iterdir() if (p / "__main__.py").exists())
OURS = (*PACKAGES, "tests", "benchmarks", "examples")

DOORS = {
    "torch": (
        "services/worker/training/",
        "services/inference/cpu_lora.py",
        "services/inference/grouped_lora.py",
        "deploy/local/convert.py",
        "deploy/local/inspect_model.py",
    ),
    "transformers": (
        "services/worker/training/",
        "shared/chat/",
        "deploy/local/convert.py",
        "deploy/local/inspect_model.py",
    ),
    "peft": ("services/worker/training/",),
    "vllm": ("services/inference/", "deploy/local/inspect_model.py"),
    "celery": ("services/worker/", "shared/task_queue.py"),
    "kombu": ("services/worker/", "shared/task_queue.py"),
    "fastapi": ("services/api/",),
}
"""Heavy libraries and the only places that import them. The two files of services/inference that
import torch run inside vLLM's process: they are its CPU operation. shared/chat uses transformers'
rendering of chat templates, which loads no torch; the API must not import it. Set-up converts
weights, and a base model that is added is looked at, in processes of their own."""

HEAVY = {"torch", "transformers", "peft", "vllm", "celery", "celery.worker"}
TESTS_BY_SUBJECT = {"e2e", "gpu", "light"}
"""Folders of tests that mirror no source folder."""


@cache
def imports(path: Path) -> frozenset[str]:
    """Return what a file imports when it runs, also inside functions; also as ``module.name``."""
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    hints = [node for node in ast.walk(tree) if _is_type_checking(node)]
    skipped = {id(inner) for hint in hints for inner in ast.walk(hint)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_type_checking(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def sources(package: str) -> list[Path]:
    """All Python files below a folder."""
    return sorted((ROOT / package).rglob("*.py"))


def our_imports(package: str) -> dict[str, set[str]]:
    """Map each file below ``package`` to the modules of this repository that it imports."""
    return {
        str(path.relative_to(ROOT)): {m for m in imports(path) if m.split(".")[0] in OURS}
        for path in sources(package)
    }


def outside(found: dict[str, set[str]], *allowed: str) -> dict[str, set[str]]:
    """Return what ``found`` imports beyond the allowed packages."""
    beyond = {
        path: {m for m in modules if not any(f"{m}.".startswith(f"{a}.") for a in allowed)}
        for path, modules in found.items()
    }
    return {path: modules for path, modules in beyond.items() if modules}


def test_there_are_four_services():
    assert SERVICES == ["api", "inference", "scheduler", "worker"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_itself_and_shared_never_another_service(service):
    assert outside(our_imports(f"services/{service}"), f"services.{service}", "shared") == {}


def test_shared_imports_no_service():
    assert outside(our_imports("shared"), "shared") == {}


def test_the_command_line_speaks_http_and_only_stack_and_models_know_this_machine():
    found = our_imports("cli")
    local = {path: found.pop(path) for path in ("cli/stack.py", "cli/model.py")}
    assert outside(found, "cli", "shared", "examples") == {}
    assert outside(local, "cli", "shared", "deploy.local") == {}


def test_deployment_imports_no_service():
    assert outside(our_imports("deploy"), "deploy", "shared") == {}


def test_examples_are_data_and_import_nothing_that_runs():
    assert outside(our_imports("examples"), "examples", "shared") == {}


def test_no_import_leads_back_to_where_it_began():
    paths = {module_of(path): path for package in OURS for path in sources(package)}
    graph = {name: paths.keys() & imports(path) - {name} for name, path in paths.items()}
    TopologicalSorter(graph).prepare()  # a CycleError names the modules


def module_of(path: Path) -> str:
    """Return a file's name as it is imported; a package's is its folder's."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("library", DOORS)
def test_a_heavy_library_is_imported_only_behind_its_door(library):
    elsewhere = [
        relative
        for package in PACKAGES
        for path in sources(package)
        if not (relative := str(path.relative_to(ROOT))).startswith(DOORS[library])
        and any(module.split(".")[0] == library for module in imports(path))
    ]
    assert elsewhere == []


def test_every_folder_of_the_api_has_its_routes():
    folders = [p for p in (ROOT / "services/api").iterdir() if (p / "__init__.py").exists()]
    assert [folder.name for folder in folders if not (folder / "routes.py").exists()] == []


def test_tests_mirror_the_source_folders():
    folders = {path.parent.relative_to(ROOT / "tests") for path in sources("tests")}
    mirrored = {f for f in folders if not TESTS_BY_SUBJECT.intersection(f.parts)}
    assert [str(folder) for folder in sorted(mirrored) if not (ROOT / folder).is_dir()] == []


@pytest.mark.slow
def test_importing_the_comparer_loads_no_engine_and_no_trainer():
    program = (
        "import json, sys, services.worker.comparing.celery_app; print(json.dumps([*sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout)
    assert (HEAVY - {"celery", "celery.worker"} | {"tokenizers"}).isdisjoint(loaded)
    assert [name for name in loaded if name.startswith("services.worker.training")] == []


def test_importing_the_api_loads_nothing_heavy():
    program = "import json, sys, services.api.app; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    reads_rows = {"tokenizers", "rensa", "py3langid", "detect_secrets", "phonenumbers"}
    assert (HEAVY | reads_rows).isdisjoint(json.loads(done.stdout))
