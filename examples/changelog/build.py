"""Make the rows of the extraction example: ``python -m examples.changelog.build FOLDER``.

A Debian changelog entry in, its facts as JSON out. Packages are split, not entries: no package of
the held-out rows is trained on. (A regular expression makes the ideal answers, so one could do the
task; it stands for extractions that no expression does.)
"""

import hashlib
import json
import sys
from itertools import groupby
from pathlib import Path

from examples.changelog.entries import ENTRIES, Entry, by_hash, parse, split_entries
from examples.rows import Row, row, to_jsonl

HELD_OUT_ROWS, TRAINING_ROWS = 200, 400
MOST_OF_A_PACKAGE = 5
"""Held-out rows: what is said of few packages says little of others."""
INSTRUCTION = (
    "Extract the facts of a Debian changelog entry. Answer with one JSON object and nothing else. "
    'Its keys: "package", "version", "urgency", "closes" (list of the numbers of the bugs that are '
    'closed), "author" (name only), "date" (YYYY-MM-DD).'
)


def build(changelogs: Path = ENTRIES) -> tuple[list[Row], list[Row]]:
    """Return the training rows and the held-out rows, all in OpenAI's chat format."""
    train, held_out = split(changelogs)
    return [_row(entry) for entry in train], [_row(entry) for entry in held_out]


def split(changelogs: Path = ENTRIES) -> tuple[list[Entry], list[Entry]]:
    """Return the entries to train on and those held out; the packages by the hash of their name."""
    texts = dict.fromkeys(split_entries(changelogs.read_text(encoding="utf-8")))
    entries = filter(None, map(parse, texts))
    packages = {name: list(own) for name, own in groupby(entries, key=lambda e: e.package)}
    held_out: list[Entry] = []
    for name in sorted(packages, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        if len(held_out) >= HELD_OUT_ROWS:
            break
        held_out += sorted(packages.pop(name), key=by_hash)[:MOST_OF_A_PACKAGE]
    train = [entry for own in packages.values() for entry in own]
    return sorted(train, key=by_hash)[:TRAINING_ROWS], held_out[:HELD_OUT_ROWS]


def _row(entry: Entry) -> Row:
    return row(entry.text.strip(), answer(entry), group=entry.package, system=INSTRUCTION)


def answer(entry: Entry) -> str:
    """Return the ideal answer."""
    facts = {
        "package": entry.package,
        "version": entry.version,
        "urgency": entry.urgency,
        "closes": entry.closes,
        "author": entry.author,
        "date": entry.date,
    }
    return json.dumps(facts, ensure_ascii=False)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    train_rows, held_out_rows = build()
    (folder / "train.jsonl").write_text(to_jsonl(train_rows), encoding="utf-8")
    (folder / "held_out.jsonl").write_text(to_jsonl(held_out_rows), encoding="utf-8")
    print(f"{len(train_rows)} training rows, {len(held_out_rows)} held-out rows")
