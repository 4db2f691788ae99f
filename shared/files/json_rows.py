"""Rows out of JSON text: one object a line, objects over several lines, or one array of objects.

A row's number is the line on which its object begins.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from shared.files.forms import BadRow, Unreadable
from shared.files.source import MAX_LINE_BYTES, TOO_LONG, Text

Row = dict[str, Any] | BadRow
_STRING = r'"(?:[^"\\\r\n]++|\\.)*+"'
_BRACKETS = re.compile(_STRING + r"|[{}\[\]]")
_TOKEN = re.compile(_STRING + r'|"[^\r\n]*+|[{}\[\]]|\r\n|\r|\n|[^\s,:"{}\[\]]+')
_OTHER_QUOTES = ("'", "“", "”", "「", "＂")
_UNENDED = "not valid JSON: the object that begins here does not end"


def read_json(text: Text) -> Iterator[tuple[int, Row]]:
    """Yield the objects of a JSON text, whichever way they are laid out."""
    if text.head().lstrip("\ufeff \t\r\n").startswith("["):
        yield from _array(text)
    else:
        yield from _lines(text)


def _parsed(text: str) -> Row:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            rest = text[error.pos :].strip()
            what = "a comma follows the object" if rest == "," else "more follows the object"
            return BadRow(f"not valid JSON: {what} on its line; each object needs its own line")
        if text[error.pos : error.pos + 1] in _OTHER_QUOTES:
            return BadRow('not valid JSON: names and texts must stand in straight quotes (")')
        return BadRow(f"not valid JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError):
        return BadRow("not usable JSON: a number is too long or the nesting too deep")
    return value if isinstance(value, dict) else BadRow("not a JSON object")


def _lines(text: Text) -> Iterator[tuple[int, Row]]:
    """Read objects by line; one that is laid out over several lines is put together first."""
    begun: _Begun | None = None
    for number, line in text.lines():
        if begun is not None and begun.is_given_up_at(line):
            yield begun.number, BadRow(_UNENDED)
            begun = None
        if isinstance(line, BadRow):
            yield number, line
        elif begun is not None:
            begun.add(line)
            if begun.depth <= 0 or begun.size > MAX_LINE_BYTES:
                yield begun.number, begun.row()
                begun = None
        elif _goes_on(line):
            begun = _Begun(number, line)
        elif line.strip():
            yield number, _parsed(line)
    if begun is not None:
        yield begun.number, BadRow(_UNENDED)


def _goes_on(line: str) -> bool:
    """Say whether a line is the beginning of an object whose next lines follow."""
    text = line.strip()
    return text[:1] == "{" and text[-1:] in "{[," and _depth(text) > 0


def _depth(text: str) -> int:
    found = _BRACKETS.findall(text)
    return sum((mark in "{[") - (mark in "}]") for mark in found if len(mark) == 1)


class _Begun:
    """An object that is laid out over several lines."""

    def __init__(self, number: int, line: str) -> None:
        self.number = number
        self.depth = 0
        self.size = 0
        self._lines: list[str] = []
        self._indented = line[:1].isspace()
        self.add(line)

    def add(self, line: str) -> None:
        """Take the next line."""
        self._lines.append(line)
        self.size += len(line)
        self.depth += _depth(line)

    def is_given_up_at(self, line: str | BadRow) -> bool:
        """Say whether ``line`` cannot belong to the object: it begins another one."""
        return isinstance(line, BadRow) or (not self._indented and line[:1] == "{")

    def row(self) -> Row:
        """Return the object, or what is wrong with it."""
        if self.size > MAX_LINE_BYTES:
            return BadRow(TOO_LONG)
        return _parsed("".join(self._lines).rstrip().removesuffix(","))


def _array(text: Text) -> Iterator[tuple[int, Row]]:
    """Read the items of one JSON array, which may stand on one line of any length."""
    cutter = _Cutter()
    for piece in _with_end(text.pieces()):
        for line, item in cutter.items(piece or "", final=piece is None):
            yield line, item if isinstance(item, BadRow) else _parsed(item)
    cutter.check_ended()


def _with_end(pieces: Iterator[str]) -> Iterator[str | None]:
    yield from pieces
    yield None


class _Cutter:
    """Follows the depth of brackets through the pieces of an array's text."""

    def __init__(self) -> None:
        self.line = 1
        self.ended = False
        self._depth = -1
        """0 inside the array."""
        self._buffer = ""
        self._place = 0
        """Up to here the buffer has been read."""
        self._start: int | None = None
        """Where the item begins that has not ended."""
        self._start_line = 1
        self._too_long = False

    def items(self, piece: str, *, final: bool) -> Iterator[tuple[int, str | BadRow]]:
        """Yield the items that end in ``piece``."""
        self._buffer += piece
        for match in _TOKEN.finditer(self._buffer, self._place):
            mark = match[0]
            if not final and match.end() == len(self._buffer) and mark not in "{}[]":
                break  # it may go on in the next piece
            self._place = match.end()
            if mark in "\r\n":
                self.line += 1
            elif self.ended:
                raise Unreadable(self.line, "more follows the end of the JSON array")
            elif mark in "{[":
                self._opens(match.start())
            elif mark in "}]":
                yield from self._closes(mark)
            elif self._depth == 0:
                yield self.line, BadRow("not a JSON object")
        self._let_go()

    def check_ended(self) -> None:
        """Raise Unreadable when the text was over before the array was."""
        if self._start is not None or self._too_long:
            raise Unreadable(self._start_line, f"{_UNENDED}; is a quotation mark not closed?")
        if not self.ended:
            raise Unreadable(self.line, 'the JSON array does not end; its last "]" is missing')

    def _opens(self, place: int) -> None:
        if self._depth == 0:
            self._start, self._start_line = place, self.line
        self._depth += 1

    def _closes(self, mark: str) -> Iterator[tuple[int, str | BadRow]]:
        if self._depth == 0:
            self.ended = mark == "]"
            if not self.ended:
                yield self.line, BadRow("not valid JSON: a bracket closes that was never opened")
            return
        self._depth -= 1
        if self._depth == 0:
            text = self._buffer[self._start : self._place]
            too_long = self._too_long or len(text) > MAX_LINE_BYTES
            yield self._start_line, BadRow(TOO_LONG) if too_long else text
            self._start, self._too_long = None, False

    def _let_go(self) -> None:
        """Forget what has been read, and an item that is too long."""
        keep = self._place if self._start is None else self._start
        if self._place - keep > MAX_LINE_BYTES:
            self._too_long, keep = True, self._place
        if len(self._buffer) - self._place > 2 * MAX_LINE_BYTES:
            raise Unreadable(self.line, f"a text is {TOO_LONG}")
        self._buffer = self._buffer[keep:]
        self._place -= keep
        self._start = None if self._start is None else 0
