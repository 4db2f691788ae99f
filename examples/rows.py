"""How the example data sets are written: one JSON object a line."""

import json
from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]


def to_jsonl(rows: Iterable[Row]) -> str:
    """Return the rows as JSON lines, readable as they are (no escapes)."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
