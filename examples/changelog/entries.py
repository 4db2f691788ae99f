"""Debian changelog entries: how they are told apart, and the facts that stand in one.

The form is that of Debian's policy manual, section 4.4 (deb-changelog(5)).
"""

import hashlib
import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ENTRIES = HERE / "entries.txt"
NOTICE = HERE / "NOTICE.md"


class Entry(NamedTuple):
    """One release of a package."""

    text: str
    package: str
    version: str
    urgency: str
    closes: list[int]
    """Numbers of the bugs that it closes, in the order of the text."""
    author: str
    date: str
    """The author's own, not UTC's; as ISO 8601."""


def split_entries(changelog: str) -> list[str]:
    """Return the entries of a changelog, each from its head line to its signature."""
    return re.findall(r"^\S.*? -- [^\n]*\n", changelog + "\n", re.MULTILINE | re.DOTALL)


def parse(text: str) -> Entry | None:
    """Read an entry; None for one that is not as the policy says."""
    match = _ENTRY.fullmatch(text)
    if match is None:
        return None
    try:
        date = datetime.strptime(match["date"], "%a, %d %b %Y %H:%M:%S %z")
    except ValueError:
        return None
    return Entry(
        text,
        match["package"],
        match["version"],
        match["urgency"].lower(),
        _closed_bugs(text),
        match["author"],
        date.date().isoformat(),
    )


def _closed_bugs(text: str) -> list[int]:
    numbers = (number for closes in _CLOSES.findall(text) for number in re.findall(r"\d+", closes))
    return list(dict.fromkeys(map(int, numbers)))


def by_hash(entry: Entry) -> str:
    """Order by hash of the text: fixed, and blind to package and age."""
    return hashlib.sha256(entry.text.encode()).hexdigest()


_ENTRY = re.compile(
    r"(?P<package>[a-z0-9][a-z0-9+.-]+) \((?P<version>[^()\s]+)\) [\w .-]+; "
    r"urgency=(?P<urgency>\w+)\n"
    r"\n(?:  .*\n|\n)+?\n?"
    r" -- (?P<author>\S[^<\n]*?) <[^<>\n]*>  (?P<date>[^\n]*\S)\s*\n",
)
_CLOSES = re.compile(r"closes:\s*(?:bug)?#?\s?\d+(?:,\s*(?:bug)?#?\s?\d+)*", re.IGNORECASE)
"""As in Debian's policy manual, 4.4; so that what the archive would close is what is asked for."""
