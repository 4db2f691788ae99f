"""The pages a newcomer reads say what is so: links, commands, names of tests, dependencies."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement

from cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
READMES = ("README.md", "README.ja.md")
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(readme: str) -> list[str]:
    """Return a README's shell commands, a line each, without comments."""
    blocks = SHELL.findall((ROOT / readme).read_text())
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [re.sub(r"\s+#.*|\s{2,}", " ", line).strip() for line in lines]


def tailor_commands() -> Iterator[list[str]]:
    """Yield the arguments of every ``tailor`` that the README tells to run."""
    for line in commands("README.md"):
        for found in re.findall(r"\.venv/bin/tailor ([^)]*)", line.replace(')"', ")")):
            yield shlex.split(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_both_readmes_tell_to_run_the_same_commands() -> None:
    english, japanese = map(commands, READMES)
    assert english == japanese


def test_both_readmes_have_the_same_sections() -> None:
    english, japanese = (
        len(re.findall(r"^## ", (ROOT / readme).read_text(), re.MULTILINE)) for readme in READMES
    )
    assert english == japanese


def test_both_readmes_show_the_same_measured_numbers() -> None:
    english, japanese = (
        sorted(re.findall(r"\d[\d.]*", "".join(measured_rows(readme)))) for readme in READMES
    )
    assert len(english) > 10
    assert english == japanese


def measured_rows(readme: str) -> list[str]:
    """Return the rows of the one table in the section about measurements."""
    text = (ROOT / readme).read_text()
    section = re.split(r"^## (?:Measured|実測値)$", text, flags=re.MULTILINE)[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")]


def test_ones_own_file_takes_at_most_five_commands() -> None:
    blocks = SHELL.findall((ROOT / "README.md").read_text())
    block = next(block for block in blocks if "job create" in block)
    assert len(block.splitlines()) <= 5


@pytest.mark.parametrize("arguments", list(tailor_commands()), ids=" ".join)
def test_the_readmes_tailor_commands_are_understood(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if command.name == "compare" and arguments[0] not in command.commands:
            arguments = ["run", *arguments]
        name, *arguments = arguments
        command = command.commands[name]
    assert command.make_context(command.name, list(arguments)).args == []


def test_every_make_target_of_the_pages_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {
        target
        for page in PAGES
        for target in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)
    }
    assert named
    assert named <= targets


def test_every_test_named_as_proof_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/proof.md").read_text())
    assert named
    missing = [
        (path, name)
        for path, name in named
        if not (ROOT / path).exists() or f"def {name}(" not in (ROOT / path).read_text()
    ]
    assert missing == []


def test_each_dependency_is_explained_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    named = {Requirement(line).name for group in groups for line in group}
    page = (ROOT / "docs/dependencies.md").read_text()
    explained = set(re.findall(r"^\| ([a-z0-9-]+) \| .+ \| .+ \|$", page, re.MULTILINE))
    assert explained - {"package"} == named
