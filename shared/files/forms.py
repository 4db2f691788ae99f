"""The three ways a training row may be written, and the one internal form they become.

chat ``{"messages": […]}``, instruction ``{"instruction", "input"?, "output"}`` and prompt
``{"prompt", "completion"}`` all become ``[{"role", "content", "weight"?}]``.
"""

from typing import Any, NotRequired, TypedDict

from shared.files.report import Format

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
COLUMNS: dict[Format, tuple[str, ...]] = {
    "chat": ("messages",),
    "instruction": ("instruction", "output"),
    "prompt": ("prompt", "completion"),
}
"""The keys by which a format is recognised."""

_OPTIONAL = {"input", "tools", "functions", "parallel_tool_calls"}
KNOWN_KEYS = _OPTIONAL.union(*COLUMNS.values())
EXPECTED = (
    'expected "messages", or "instruction" and "output" (with an optional "input"), '
    'or "prompt" and "completion"'
)


class Message(TypedDict):
    """One turn of a normalised row."""

    role: str
    content: str
    weight: NotRequired[int]
    """1: the turn is learnt; assistant turns only."""


class BadRow(ValueError):
    """A row cannot be used; the message says why and holds nothing of the row's text."""


class Unreadable(Exception):
    """The rest of the file cannot be read."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(line, message)
        self.line = line
        self.message = message


def format_of(keys: set[str]) -> Format:
    """Recognise a row's format by its keys; raise BadRow."""
    for name, wanted in COLUMNS.items():
        if keys.issuperset(wanted):
            return name
    raise BadRow(EXPECTED)


def normalise(row: dict[str, Any]) -> tuple[Format, list[Message]]:
    """Return a row's format and its messages; raise BadRow."""
    form = format_of(set(row))
    if form == "chat":
        return form, _chat(row)
    if form == "instruction":
        question = _text(row, "instruction")
        if row.get("input"):
            question += "\n\n" + _text(row, "input")
        return form, _pair(question, _text(row, "output"))
    return form, _pair(_text(row, "prompt"), _text(row, "completion"))


def _pair(question: str, answer: str) -> list[Message]:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, "weight": 1},
    ]


def _chat(row: dict[str, Any]) -> list[Message]:
    if row.get("tools") or row.get("functions"):
        raise BadRow('"tools" are not supported')
    turns = row["messages"]
    if not isinstance(turns, list) or not turns:
        raise BadRow('"messages" must be a list with at least one message')
    messages = [_message(turn, number) for number, turn in enumerate(turns, start=1)]
    if not any(message.get("weight") == 1 for message in messages):
        raise BadRow("there is no assistant message to learn from (with weight 1, the default)")
    return messages


def _message(turn: object, number: int) -> Message:
    where = f"message {number}"
    if not isinstance(turn, dict):
        raise BadRow(f"{where} is not an object")
    role = turn.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRow(f'{where}: "role" must be one of {", ".join(ROLES)}')
    if turn.get("tool_calls") or turn.get("function_call"):
        raise BadRow(f"{where}: tool calls are not supported")
    content = _text(turn, "content", f"{where}: ")
    if role == "assistant":
        return {"role": role, "content": content, "weight": _weight(turn, where)}
    if turn.get("weight") is not None:
        raise BadRow(f'{where}: only assistant messages may have a "weight"')
    return {"role": ROLES[role], "content": content}


def _weight(turn: dict[str, Any], where: str) -> int:
    weight = turn.get("weight")
    if weight is None:
        return 1
    if isinstance(weight, bool) or weight not in (0, 1):
        raise BadRow(f'{where}: "weight" must be 0 or 1')
    return int(weight)


def _text(mapping: dict[str, Any], key: str, where: str = "") -> str:
    value = mapping.get(key)
    if not isinstance(value, str):
        raise BadRow(f'{where}"{key}" must be text')
    if not value.strip():
        raise BadRow(f'{where}"{key}" is empty')
    if "\x00" in value:
        raise BadRow(f'{where}"{key}" contains a NUL character')
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f'{where}"{key}" contains half of a surrogate pair (a broken emoji)') from None
    return value
