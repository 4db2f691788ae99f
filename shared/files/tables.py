"""Rows of a table below its header, whether it comes from a CSV file or from a workbook."""

import json
from collections.abc import Sequence
from typing import Any

from shared.files.forms import BadRow, Unreadable, blank
from shared.files.headers import HeaderError, canonical, unused
from shared.files.workbook import Notice

_MAX_NAMED = 5
UNUSED = "columns or keys that Tailor does not use are ignored"


class Table:
    """A header that was understood."""

    def __init__(self, line: int, names: Sequence[str], notice: Notice) -> None:
        # Two columns of one name are told apart by their places.
        try:
            self._keys = _keys(names)
        except HeaderError as error:
            raise Unreadable(line, f"the header is not understood: {error}") from None
        if others := unused(tuple(names)):
            more = f" and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
            named = ", ".join(f'"{name.strip()[:40]}"' for name in others[:_MAX_NAMED])
            notice(line, f"{UNUSED}: {named}{more}")
        self._width = len(names)

    def row(self, cells: Sequence[str]) -> dict[str, Any] | BadRow | None:
        """Return a row by its keys; None for a blank one."""
        if all(map(blank, cells)):
            return None
        if not all(map(blank, cells[self._width :])):
            return BadRow(
                f"more cells than the header's {self._width} columns; a cell that holds the "
                "separator must stand in quotation marks"
            )
        row: dict[str, Any] = {
            key: cells[place] if place < len(cells) else "" for place, key in self._keys.items()
        }
        if "messages" in row:
            return _with_messages(row)
        return row


def _keys(names: Sequence[str]) -> dict[int, str]:
    """Map the places of the columns that are used to their keys."""
    chosen = canonical(tuple(names))
    return {place: chosen[name] for place, name in enumerate(names) if name in chosen}


def _with_messages(row: dict[str, Any]) -> dict[str, Any] | BadRow:
    text = row["messages"].strip()
    try:
        return row | {"messages": json.loads(text)}
    except (ValueError, RecursionError):
        if text.startswith(("[{'", "{'")):
            return BadRow('"messages" is written as Python shows a list; write it as JSON')
        return BadRow('"messages" does not hold valid JSON')
