"""``.env.example`` names every setting of the product, with its default and without a secret."""

import json
import re
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from tests.deploy.settings_classes import all_fields

ROOT = Path(__file__).parents[2]
LINES = (ROOT / ".env.example").read_text().splitlines()
ASSIGNMENT = re.compile(r"^(#?)([A-Z][A-Z0-9_]*)=(.*)$")
EXAMPLE = {
    match[2]: (match[3], bool(match[1]), LINES[number - 1])
    for number, line in enumerate(LINES)
    if (match := ASSIGNMENT.match(line))
}
USED_BY_COMPOSE = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))


def test_the_example_names_every_setting_and_nothing_that_does_not_exist() -> None:
    settings = {name for name in EXAMPLE if name.startswith("TAILOR_")}
    assert settings == set(all_fields())


def test_the_other_names_are_those_that_compose_alone_uses() -> None:
    others = {name for name in EXAMPLE if not name.startswith("TAILOR_")}
    assert others == {name for name in USED_BY_COMPOSE if not name.startswith("TAILOR_")}


def test_no_name_appears_twice() -> None:
    names = [match[2] for line in LINES if (match := ASSIGNMENT.match(line))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", EXAMPLE)
def test_a_name_has_a_comment_of_one_line_above_it(name: str) -> None:
    _value, _commented, above = EXAMPLE[name]
    assert re.match(r"^# [^-]\S*", above)


@pytest.mark.parametrize("name", all_fields())
def test_the_value_shown_is_the_default(name: str) -> None:
    value, _commented, _above = EXAMPLE[name]
    assert value == shown(all_fields()[name])


def test_what_compose_requires_is_to_be_filled_in_and_everything_else_is_optional() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert {name for name, (_v, commented, _a) in EXAMPLE.items() if not commented} == required


def test_no_secret_has_a_value() -> None:
    secret = {name for name, field in all_fields().items() if SecretStr in kinds(field)}
    secret |= {name for name in EXAMPLE if name.endswith(("PASSWORD", "SECRET", "KEY"))}
    assert {name for name in secret if EXAMPLE[name][0]} == set()


def kinds(field: FieldInfo) -> tuple[object, ...]:
    return (field.annotation, *getattr(field.annotation, "__args__", ()))


def shown(field: FieldInfo) -> str:
    """Return the default as the environment would spell it; nothing where there is none to show."""
    default = field.default
    if field.is_required() or field.default_factory or default is None or isinstance(default, Path):
        return ""
    return json.dumps(default) if isinstance(default, tuple) else str(default)
