"""The ways a training row may be written, and the one internal form they become.

chat ``{"messages": […]}`` (also as ShareGPT's ``conversations``), instruction ``{"instruction",
"input"?, "output"}`` and prompt ``{"prompt", "completion"}`` under any name of ``headers`` all
become the messages of ``normalised``.
"""

import math
from typing import Any, Literal

from shared.files.foreign import refusal
from shared.files.headers import COLUMNS, EXPECTED, HeaderError, canonical
from shared.files.normalised import Message, Role
from shared.files.report import Format

__all__ = ["COLUMNS", "EXPECTED", "BadRow", "Unreadable", "blank", "group_of", "normalise"]

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_SHAREGPT: dict[str, Role] = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
_TOOL_ROLES = {"tool", "function", "function_call", "tool_call", "tool_response", "observation"}
MAX_GROUP = 200
MAX_TURNS = 1000
"""As many as a chat may have."""
_INVISIBLE = "\u200b\ufeff\u2060\x1a"


class BadRow(ValueError):
    """A row cannot be used; the message says why and holds nothing of the row's text."""


class Unreadable(Exception):
    """The rest of the file cannot be read."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(line, message)
        self.line = line
        self.message = message


def blank(value: object) -> bool:
    """Say whether a value holds nothing: null, blanks of any width, or pandas' NaN."""
    if isinstance(value, str):
        text = value.strip()
        return not text or text in ("NaN", "nan") or not text.strip(_INVISIBLE + " \u3000\xa0")
    return value is None or (isinstance(value, float) and math.isnan(value))


def normalise(row: dict[str, Any]) -> tuple[Format, list[Message]]:
    """Return a row's format and its messages; raise BadRow."""
    reason = refusal(row)
    if reason is not None:
        raise BadRow(reason)
    try:
        keys = canonical(tuple(row))
    except HeaderError as error:
        raise BadRow(str(error)) from None
    return _normal({key: (name, row[name]) for name, key in keys.items()}, row)


def group_of(row: dict[str, Any]) -> str | None:
    """Return the group of a row that ``normalise`` has taken; raise BadRow for what is none."""
    names = {key: name for name, key in canonical(tuple(row)).items()}
    name = names.get("group")
    value = None if name is None else row[name]
    if blank(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadRow(f'"{name}" must be text or a number: rows of one group have the same')
    text = _text(str(name), str(value)).strip()
    if len(text) > MAX_GROUP:
        raise BadRow(f'"{name}" is longer than {MAX_GROUP} characters')
    return text


Fields = dict[str, tuple[str, Any]]
"""Key of the form → the user's name for it, and the value."""


def _normal(fields: Fields, row: dict[str, Any]) -> tuple[Format, list[Message]]:
    if "messages" in fields:
        return "chat", _chat(*fields["messages"], row)
    if "completion" in fields:
        return "prompt", _pair(_text(*fields["prompt"]), _text(*fields["completion"]))
    question = _text(*fields["instruction"])
    if "input" in fields and not blank(fields["input"][1]):
        question += "\n\n" + _text(*fields["input"])
    return "instruction", _pair(question, _text(*fields["output"]))


def _pair(question: str, answer: str) -> list[Message]:
    return [
        Message(role="user", content=question),
        Message(role="assistant", content=answer, weight=1),
    ]


def _chat(name: str, turns: object, row: dict[str, Any]) -> list[Message]:
    if row.get("tools") or row.get("functions"):
        raise BadRow('"tools" are not supported')
    if not isinstance(turns, list) or not turns:
        raise BadRow(f'"{name}" must be a list with at least one message')
    if len(turns) > MAX_TURNS:
        raise BadRow(f"{len(turns):,} messages; a row may have {MAX_TURNS:,} at most")
    messages = [_message(turn, number) for number, turn in enumerate(turns, start=1)]
    kept = [message for message in messages if message is not None]
    if name != "messages" and not blank(row.get("system")):
        kept.insert(0, Message(role="system", content=_text("system", row["system"])))
    if not any(message.role == "assistant" and message.weight == 1 for message in kept):
        raise BadRow("there is no assistant message to learn from (with weight 1, the default)")
    return kept


def _message(turn: object, number: int) -> Message | None:
    """Return one turn; None for a system message that says nothing."""
    where = f"message {number}"
    if not isinstance(turn, dict):
        raise BadRow(f"{where} is not an object")
    role = _role(turn, where)
    if turn.get("tool_calls") or turn.get("function_call"):
        raise BadRow(f"{where}: tool calls are not supported")
    key = "value" if "value" in turn and "content" not in turn else "content"
    content = turn.get(key)
    if isinstance(content, list):
        content = _joined(content, where)
    if role == "system" and blank(content) and key in turn:
        return None
    text = _text(key, content, f"{where}: ")
    if role == "assistant":
        return Message(role=role, content=text, weight=_weight(turn, where))
    if turn.get("weight") is not None:
        raise BadRow(f'{where}: only assistant messages may have a "weight"')
    return Message(role=role, content=text)


def _role(turn: dict[str, Any], where: str) -> Role:
    key = "from" if "from" in turn and "role" not in turn else "role"
    role = turn.get(key)
    name = role.strip().lower() if isinstance(role, str) else ""
    if name in _TOOL_ROLES:
        raise BadRow(f'{where}: "{key}" must be one of {", ".join(ROLES)}; tools are not supported')
    known = ROLES.get(name) or _SHAREGPT.get(name)
    if known is None:
        raise BadRow(f'{where}: "{key}" must be one of {", ".join(ROLES)}')
    return known


_PARTS = {
    "image": "images",
    "image_url": "images",
    "input_image": "images",
    "input_audio": "audio",
    "audio": "audio",
    "video": "videos",
    "video_url": "videos",
    "file": "files",
    "tool_use": "tool calls",
    "tool_result": "tool calls",
}


def _joined(parts: list[Any], where: str) -> str:
    """Return the text of a content written as parts, as the gateway joins them."""
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind in _PARTS:
            raise BadRow(f"{where}: {_PARTS[kind]} ({kind}) are not supported; only text is")
        if kind != "text":
            raise BadRow(f'{where}: the parts of "content" must have the type "text"')
        if not isinstance(part.get("text"), str):
            raise BadRow(f'{where}: "text" of a part must be text')
        texts.append(part["text"])
    return "".join(texts)


def _weight(turn: dict[str, Any], where: str) -> Literal[0, 1]:
    weight = turn.get("weight")
    if weight is None:
        return 1
    if isinstance(weight, bool) or weight not in (0, 1):
        raise BadRow(f'{where}: "weight" must be 0 or 1')
    return 1 if weight else 0


def _text(key: str, value: object, where: str = "") -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow(
            f'{where}"{key}" is {"NaN" if math.isnan(value) else "Infinity"}, as pandas writes a '
            "missing or endless number; write the text, or leave the row out"
        )
    if not isinstance(value, str):
        raise BadRow(f'{where}"{key}" must be text')
    if not value.strip().strip(_INVISIBLE):
        raise BadRow(f'{where}"{key}" is empty')
    if "\x00" in value:
        raise BadRow(f'{where}"{key}" contains a NUL character')
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f'{where}"{key}" contains half of a surrogate pair (a broken emoji)') from None
    return value
