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

_OPTIONAL = {"input", "conversations", "tools", "functions", "parallel_tool_calls"}
KNOWN_KEYS = _OPTIONAL.union(*COLUMNS.values())
EXPECTED = (
    'expected "messages", or "instruction" and "output" (with an optional "input"), '
    'or "prompt" and "completion"'
)


MAX_MESSAGES = 1000
"""Of one row: more than any context here holds, and few enough to render quickly."""


class Message(TypedDict):
    """One turn of a normalised row."""

    role: str
    content: str
    weight: NotRequired[int]
    """1: the turn is learnt; assistant turns only."""


_PREFERENCES = {"chosen", "rejected", "preferred_output", "non_preferred_output"}
_SHAREGPT = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}


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
    if keys & _PREFERENCES:
        raise BadRow("preference pairs are not learnt from; give one ideal answer for each row")
    if "conversations" in keys:
        return "chat"
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
        if not _is_blank(row.get("input")):
            question += "\n\n" + _text(row, "input")
        return form, _pair(question, _text(row, "output"))
    return form, _pair(_text(row, "prompt"), _text(row, "completion"))


def _is_blank(value: object) -> bool:
    """Say whether a value is what programs write for nothing; NaN is pandas' word for it."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())  # noqa: PLR0124  NaN alone differs from itself


def _pair(question: str, answer: str) -> list[Message]:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, "weight": 1},
    ]


def _chat(row: dict[str, Any]) -> list[Message]:
    if "conversations" in row and "messages" not in row:
        row = row | {"messages": _of_sharegpt(row["conversations"])}
    if row.get("tools") or row.get("functions"):
        raise BadRow('"tools" are not supported')
    turns = row["messages"]
    if not isinstance(turns, list) or not turns:
        raise BadRow('"messages" must be a list with at least one message')
    if len(turns) > MAX_MESSAGES:
        raise BadRow(f"{len(turns)} messages in one row; at most {MAX_MESSAGES} are learnt from")
    messages = [
        _message(turn, number)
        for number, turn in enumerate(turns, start=1)
        if not _is_empty_system(turn)
    ]
    if not any(message.get("weight") == 1 for message in messages):
        raise BadRow("there is no assistant message to learn from (with weight 1, the default)")
    return messages


def _of_sharegpt(turns: object) -> object:
    """Return ShareGPT's turns (from, value) as messages; what is no such turn as it is."""
    if not isinstance(turns, list):
        return turns
    return [
        {"role": _SHAREGPT.get(str(turn["from"]), turn["from"]), "content": turn.get("value")}
        if isinstance(turn, dict) and "from" in turn
        else turn
        for turn in turns
    ]


def _is_empty_system(turn: object) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") in ("system", "developer")
        and _is_blank(turn.get("content", ""))
    )


def _message(turn: object, number: int) -> Message:
    where = f"message {number}"
    if not isinstance(turn, dict):
        raise BadRow(f"{where} is not an object")
    role = turn.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRow(f'{where}: "role" must be one of {", ".join(ROLES)}')
    if turn.get("tool_calls") or turn.get("function_call"):
        raise BadRow(f"{where}: tool calls are not supported")
    content = _text({"content": _joined(turn.get("content"), where)}, "content", f"{where}: ")
    if role == "assistant":
        return {"role": role, "content": content, "weight": _weight(turn, where)}
    if turn.get("weight") is not None:
        raise BadRow(f'{where}: only assistant messages may have a "weight"')
    return {"role": ROLES[role], "content": content}


def _joined(content: object, where: str) -> object:
    """Return text parts as one text, as a chat takes them; anything else as it is."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("image_url", "input_image", "image", "input_audio", "file"):
            raise BadRow(f"{where}: images, sound and files are not supported; only text is")
        if kind != "text" or not isinstance(part.get("text"), str):
            raise BadRow(f'{where}: a part of "content" must be text')
        texts.append(part["text"])
    return "".join(texts)


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
