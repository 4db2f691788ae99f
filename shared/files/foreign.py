"""Rows made for another way of training or another company's API, each refused in one sentence."""

from collections.abc import Callable
from typing import Any

_PREFERENCES = (
    "a row of preferences (DPO), with a chosen and a rejected answer; Tailor learns from one ideal "
    'answer: write "prompt" and "completion"'
)
_JUDGED = (
    'a row of judged answers (KTO), with true or false as its "label"; leave the bad answers out, '
    'and "label" with them'
)
_ANTHROPIC = (
    'a "system" beside "messages" (the form of Anthropic); make it the first message, with the '
    'role "system"'
)
_GEMINI = '"contents" with "parts" (the form of Gemini); write "messages" with "role" and "content"'
_BATCH = 'a line of a batch; a training row is what stands in its "body", with the answer'
_WRAPPED = "one object that holds the rows in a list; upload the list itself"
_MESSAGE = 'one message and not a row; a row has all messages of a conversation, as "messages"'
_HISTORY = 'earlier turns in "history" are not read; write the whole conversation as "messages"'
_RAW = 'plain text ("text") without a question and an answer; write "instruction" and "output"'
_WRAPPERS = {"data", "rows", "examples", "train", "items", "records"}

_FORMS: tuple[tuple[Callable[[dict[str, Any]], bool], str], ...] = (
    (lambda row: {"chosen", "rejected"} <= row.keys(), _PREFERENCES),
    (lambda row: {"preferred_output", "non_preferred_output"} <= row.keys(), _PREFERENCES),
    (lambda row: isinstance(row.get("label"), bool) and "completion" in row, _JUDGED),
    (lambda row: "messages" in row and bool(row.get("system")), _ANTHROPIC),
    (lambda row: isinstance(row.get("contents"), list), _GEMINI),
    (lambda row: "custom_id" in row and isinstance(row.get("body"), dict), _BATCH),
    (lambda row: {"role", "content"} <= row.keys() and "messages" not in row, _MESSAGE),
    (lambda row: bool(row.get("history")) and isinstance(row["history"], list), _HISTORY),
    (lambda row: row.keys() == {"text"}, _RAW),
    (lambda row: any(_holds_rows(row.get(key)) for key in _WRAPPERS), _WRAPPED),
)


def refusal(row: dict[str, Any]) -> str | None:
    """Return why a row of a foreign form is not taken; None for any other row."""
    return next((reason for is_one, reason in _FORMS if is_one(row)), None)


def _holds_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
