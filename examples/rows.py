"""How the example data sets are written: one JSON object a line, in OpenAI's chat format."""

import json
from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]


def row(question: str, answer: str, group: str | None = None, system: str | None = None) -> Row:
    """Return a row; those of one ``group`` tell of the same thing."""
    said = {"system": system, "user": question, "assistant": answer}
    messages = [{"role": role, "content": text} for role, text in said.items() if text is not None]
    return {"messages": messages} if group is None else {"messages": messages, "group": group}


def to_jsonl(rows: Iterable[Row]) -> str:
    """Return the rows as JSON lines, readable as they are (no escapes)."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
