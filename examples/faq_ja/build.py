"""Debian's FAQ in Japanese, each question in several words, and asked in others afterwards.

``python -m examples.faq_ja.build FOLDER`` writes the two files. Held out is a phrasing of every
question and never a question: how well unknown questions are answered is not measured. The
phrasings are made by rule, so they are more alike than what two people would write.
"""

import sys
from pathlib import Path

from examples.faq_ja.read import FOLDER, Entry, entries
from examples.rows import Row, row, to_jsonl

LEARNT = (
    "{question}",
    "Debian について教えてください。{question}",
    "次の質問に答えてください。「{question}」",
    "お世話になっております。{stem}、ご存じでしたら教えてください。",
)
ASKED = "すみません、{stem}、知りたいのですが。"


def build(folder: Path = FOLDER) -> tuple[list[Row], list[Row]]:
    """Return the training rows and the held-out rows; raises FaqMissing."""
    found = entries(folder)
    train = [_row(entry, phrasing, n) for n, entry in enumerate(found) for phrasing in LEARNT]
    return train, [_row(entry, ASKED, n) for n, entry in enumerate(found)]


def _row(entry: Entry, phrasing: str, number: int) -> Row:
    asked = phrasing.format(question=entry.question, stem=entry.question.rstrip("?"))
    return row(asked, entry.answer, group=f"faq-{number}")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    train_rows, held_out_rows = build()
    (target / "train.jsonl").write_text(to_jsonl(train_rows), encoding="utf-8")
    (target / "held_out.jsonl").write_text(to_jsonl(held_out_rows), encoding="utf-8")
    print(f"{len(train_rows)} training rows, {len(held_out_rows)} held-out rows")
