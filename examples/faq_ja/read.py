"""The Japanese Debian FAQ as questions and answers, out of the pages of Debian's own package.

Its licence asks for the same notice on what is made of it, so its text is read where it is
installed, or fetched with ``apt-get``, and never shipped.
"""

import re
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

PACKAGE = "debian-faq-ja"
PAGES = "usr/share/doc/debian/FAQ/ja"
FOLDER = Path("/") / PAGES
LONGEST = 240
"""Characters of an answer: whole sentences, one at least."""
SHORTEST = 20
_BLOCKS = {"p", "li", "pre", "dt", "dd"}
_ASIDE = {"toc", "navheader", "navfooter", "footnotes"}


class FaqMissing(Exception):
    """The package is not installed and cannot be fetched."""


class Entry(NamedTuple):
    """One question."""

    question: str
    answer: str


def entries(folder: Path = FOLDER) -> list[Entry]:
    """Return the questions in the order of the FAQ; raises FaqMissing."""
    if folder.is_dir():
        return _read(folder)
    with tempfile.TemporaryDirectory(prefix="tailor-faq-") as scratch:
        return _read(_fetched(Path(scratch)))


def _fetched(scratch: Path) -> Path:
    """Unpack the package, which installs nothing, and return the folder of its pages."""
    try:
        _run(scratch, "apt-get", "download", PACKAGE)
        _run(scratch, "dpkg-deb", "-x", *map(str, scratch.glob("*.deb")), ".")
    except (OSError, subprocess.SubprocessError) as error:
        raise FaqMissing(
            "This example reads Debian's Japanese FAQ, which is not installed and could not be "
            f"fetched: `apt install {PACKAGE}` on Debian or Ubuntu."
        ) from error
    return scratch / PAGES


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)


def _read(folder: Path) -> list[Entry]:
    found: dict[str, str] = {}
    for page in sorted(folder.glob("*.html")):
        for question, answer in sections(page.read_text(encoding="utf-8")):
            if question.endswith("?") and len(answer) >= SHORTEST:
                found.setdefault(question, answer)
    if not found:
        raise FaqMissing(f"{folder} holds no questions: is it the folder of {PACKAGE}?")
    return [Entry(*entry) for entry in found.items()]


def sections(page: str) -> list[Entry]:
    """Return the titled sections of a page, each with the beginning of its own text."""
    reader = _Reader()
    reader.feed(page)
    return [Entry(_one_line(title), _beginning(text)) for title, text in reader.sections]


class _Reader(HTMLParser):
    """Collects each title and what follows it, lists of contents and navigation left out."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[list[str]] = []
        self._in_title = False
        self._open: list[bool] = []
        """Of each open division: whether it is beside the text."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kind = dict(attrs).get("class")
        if tag == "div":
            self._open.append(kind in _ASIDE)
        elif tag in {"h2", "h3"} and kind == "title":
            self.sections.append(["", ""])
            self._in_title = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "div" and self._open:
            self._open.pop()
        elif tag in {"h2", "h3"}:
            self._in_title = False
        elif tag in _BLOCKS:
            self.handle_data("\n\n")

    def handle_data(self, data: str) -> None:
        if self.sections and not any(self._open):
            self.sections[-1][0 if self._in_title else 1] += data


def _one_line(title: str) -> str:
    """Return a title without its number; an old translation's question mark is an ASCII one."""
    text = " ".join(title.split()).replace("？", "?")
    return re.sub(r"^[\d.]+ ?", "", text)


def _beginning(text: str) -> str:
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", text)]
    sentences = re.findall(r"[^。]+。?", " ".join(block for block in blocks if block))
    taken = ""
    for sentence in map(str.strip, sentences):
        if taken and len(taken) + len(sentence) > LONGEST:
            break
        taken += sentence
    return taken[: 2 * LONGEST]
