"""The description of continuous integration runs what the Makefile, the images and Python offer."""

import re
import tomllib
from pathlib import Path

import yaml

from deploy.local.programs import SERVICES

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
JOBS = WORKFLOW["jobs"]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(job: str) -> list[str]:
    """Return what a job runs after the machine is prepared."""
    runs = [step["run"] for step in JOBS[job]["steps"] if "run" in step]
    return [run for run in runs if not run.startswith("sudo apt-get")]


def test_each_job_is_one_command_and_its_make_target_exists() -> None:
    found = {job: commands(job) for job in JOBS}
    built = "docker build --file deploy/docker/${{ matrix.service }}.Dockerfile ."
    assert found.pop("images") == [built]
    assert found == {
        "check": ["make check"],
        "stack": ["make test"],
        "migrations": ["make migrations"],
    }
    assert {run.removeprefix("make ") for runs in found.values() for run in runs} <= TARGETS


def test_an_image_is_built_of_every_service() -> None:
    assert sorted(JOBS["images"]["strategy"]["matrix"]["service"]) == sorted(SERVICES)


def test_every_python_is_one_that_the_project_admits() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    steps = [step for job in JOBS.values() for step in job["steps"]]
    named = {step["with"]["python-version"] for step in steps if "setup-python" in str(step)}
    assert named == {"3.11"}
    assert project["requires-python"] == ">=3.11,<3.12"


def test_what_the_short_script_runs_exists_too() -> None:
    run = (ROOT / ".ci/run").read_text()
    assert set(re.findall(r"^make (\w+)", run, re.MULTILINE)) <= TARGETS
