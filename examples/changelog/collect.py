"""Choose the entries that the project ships from this machine's own Debian changelogs.

``python -m examples.changelog.collect`` on a Debian or Ubuntu machine writes ``entries.txt`` and
``NOTICE.md`` anew; nobody who uses the example needs it. Taken are packages whose packaging
(``debian/*`` in their copyright file) is under a permissive licence, and of each a few entries.
Authors are named, as is due; their addresses are left out, for no question asks for them.
"""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from examples.changelog.entries import ENTRIES, NOTICE, Entry, by_hash, parse, split_entries

DOCUMENTATION = Path("/usr/share/doc")
ENTRIES_PER_PACKAGE = 12
MAX_ENTRY_LENGTH = 600
"""In characters: about 200 tokens."""
PERMISSIVE = {
    "Apache-2.0": "Apache-2.0",
    "BSD-2-clause": "BSD-2-Clause",
    "BSD-3-clause": "BSD-3-Clause",
    "BSD-3-Clause": "BSD-3-Clause",
    "CC0": "CC0-1.0",
    "CC0-1.0": "CC0-1.0",
    "Expat": "MIT",
    "MIT": "MIT",
    "public-domain": "public domain",
}
"""From the names that copyright files use to those of SPDX."""


class Source(NamedTuple):
    """One source package's changelog, and who holds what rights in it."""

    package: str
    licence: str
    holders: str
    entries: tuple[str, ...]


def sources(documentation: Path = DOCUMENTATION) -> list[Source]:
    """Return the permissively licensed changelogs, one for each source package, by name."""
    found = {source.package: source for source in _sources(documentation)}
    return [found[package] for package in sorted(found)]


def _sources(documentation: Path) -> Iterator[Source]:
    for changelog in sorted(documentation.glob("*/changelog.Debian.gz")):
        rights = _packaging_rights(changelog.with_name("copyright"))
        if rights is None:
            continue
        text = gzip.decompress(changelog.read_bytes()).decode("utf-8", "replace")
        entries = [entry for raw in split_entries(text) if (entry := _usable(raw))]
        chosen = sorted(entries, key=by_hash)[:ENTRIES_PER_PACKAGE]
        if chosen:
            yield Source(chosen[0].package, *rights, tuple(entry.text for entry in chosen))


def _usable(raw: str) -> Entry | None:
    entry = parse(re.sub(r"^( -- .*) <[^<>\n]*>", r"\1 <>", raw, flags=re.MULTILINE))
    usable = entry and len(raw) <= MAX_ENTRY_LENGTH and "@" not in entry.text
    return entry if usable else None


def _packaging_rights(copyright_file: Path) -> tuple[str, str] | None:
    """Return licence and copyright holders of ``debian/*``; None unless the licence permits all."""
    if not copyright_file.is_file():
        return None
    text = copyright_file.read_text(encoding="utf-8", errors="replace")
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict(
            re.findall(r"^([\w-]+):[ \t]*((?:.*)(?:\n[ \t]+.*)*)", paragraph, re.MULTILINE)
        )
        if "debian/*" in fields.get("Files", "").split():
            licence = PERMISSIVE.get(fields.get("License", "").partition("\n")[0].strip())
            holders = "; ".join(
                " ".join(s.split()) for s in fields.get("Copyright", "").splitlines()
            )
            return (licence, re.sub(r" *<[^<>]*>", "", holders).strip("; ")) if licence else None
    return None


def notice(chosen: list[Source]) -> str:
    """Return the page that names packages, licences and copyright holders."""
    lines = [f"| {s.package} | {s.licence} | {s.holders.replace('|', '/')} |" for s in chosen]
    return NOTICE_HEAD + "\n".join(lines) + "\n"


NOTICE_HEAD = """\
# Where `entries.txt` comes from

Entries of Debian changelogs, from the files under `/usr/share/doc` of a Debian 12 machine; the
maintainers' addresses were left out. Each package's packaging, of which its changelog is a part,
is under the licence named here; the texts stand at <https://spdx.org/licenses/>.

| package | licence of the packaging | copyright |
|---|---|---|
"""

if __name__ == "__main__":
    taken = sources()
    ENTRIES.write_text("\n".join(text for s in taken for text in s.entries), encoding="utf-8")
    NOTICE.write_text(notice(taken), encoding="utf-8")
    print(f"{sum(len(s.entries) for s in taken)} entries of {len(taken)} packages")
