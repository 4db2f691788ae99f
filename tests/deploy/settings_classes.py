"""All settings classes of the product, found by looking, and the environment names they read."""

import re
from functools import cache
from importlib import import_module
from inspect import isclass
from pathlib import Path

from pydantic.fields import FieldInfo

from shared.settings import TailorSettings

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared", "services", "cli", "deploy")
SETTINGS_CLASS = re.compile(r"^class \w+\([^)]*\w*Settings\b[^)]*\)", re.MULTILINE)


@cache
def settings_modules() -> tuple[str, ...]:
    """Return the modules that define a settings class; only these are imported."""
    return tuple(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if SETTINGS_CLASS.search(path.read_text())
    )


def settings_classes(module: str) -> list[type[TailorSettings]]:
    """Return the settings classes defined in ``module``."""
    return [
        value
        for value in vars(import_module(module)).values()
        if isclass(value) and issubclass(value, TailorSettings) and value.__module__ == module
    ]


def environment_names(module: str) -> set[str]:
    """Return the ``TAILOR_*`` variables that the settings of ``module`` read."""
    return set(fields(module))


def fields(module: str) -> dict[str, FieldInfo]:
    """Return the settings fields of ``module`` by their environment names."""
    return {
        f"TAILOR_{name.upper()}": field
        for found in settings_classes(module)
        for name, field in found.model_fields.items()
    }


def all_fields() -> dict[str, FieldInfo]:
    """Return every settings field of the product by its environment name."""
    return {name: field for module in settings_modules() for name, field in fields(module).items()}
