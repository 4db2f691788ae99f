"""Whether an answer is the expected JSON value, or how many of its fields are.

The whole answer must be JSON, as for the program that would read it: words or a code fence around
it make it wrong.
"""

import json
from typing import Any

_NOTHING = object()
"""Equal to no JSON value."""


def is_structured(text: str) -> bool:
    """Say whether a text is a JSON object or list."""
    return isinstance(_parsed(text), dict | list)


def same_value(answer: str, expected: str) -> bool:
    """Say whether both are the same JSON value."""
    return _same(_parsed(answer), _parsed(expected))


def same_fields(answer: str, expected: str) -> float:
    """Return the share of fields with the expected value, of all that either of both has.

    Objects inside an object count field by field, a list as one field.
    """
    found, wanted = _fields(_parsed(answer)), _fields(_parsed(expected))
    right = sum(_same(found.get(path, _NOTHING), value) for path, value in wanted.items())
    return right / max(1, len(found.keys() | wanted.keys()))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_float=_number, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NOTHING


def _number(digits: str) -> float | int:
    """Read 1.0 as 1: JSON has one kind of numbers."""
    number = float(digits)
    return int(number) if number.is_integer() else number


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _same(one: Any, other: Any) -> bool:
    """Compare by text, because Python's True is equal to 1."""
    if _NOTHING in (one, other):
        return False
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _fields(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if value is _NOTHING:
        return {}
    if not isinstance(value, dict) or not value:
        return {path: value}
    inner = (_fields(item, (*path, key)) for key, item in value.items())
    return {path: item for fields in inner for path, item in fields.items()}
