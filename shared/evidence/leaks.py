"""Held-out rows that training or retrieval has seen, exactly or nearly.

Compared are question and answer, without system messages and without the beginning that all
questions of the file share: a long instruction before every row would make all of them alike.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from shared.datareport.duplicates import MAX_NEAR_ROWS
from shared.datareport.near import Sketches
from shared.datareport.rows import Row, comparable
from shared.evidence.report import Leak

MIN_FOR_SHARED_BEGINNING = 10
"""Fewer rows, as in no training file, may begin alike by chance."""


def leaks(held_out: Sequence[Row], training: Sequence[Row]) -> list[Leak]:
    """Return one leak for each held-out row that stands in ``training``, in the rows' order.

    ``exact``: the same but for case, width, blanks and end punctuation. ``near``: small changes, in
    the sense of ``shared.datareport.near``; rows with other numbers are never near.
    """
    rows = [*training, *held_out]
    texts = _texts(rows)
    first: dict[tuple[str, str], int] = {}
    for index, text in enumerate(texts[: len(training)]):
        first.setdefault(text, index)
    near: dict[int, int] = {}
    for earlier, later in _sketched(texts).pairs_across(len(training)):
        near.setdefault(later, earlier)
    found = []
    for index in range(len(training), len(rows)):
        exact = first.get(texts[index])
        where = exact if exact is not None else near.get(index)
        if where is not None:
            kind = "near" if exact is None else "exact"
            found.append(
                Leak(kind=kind, held_out_line=rows[index].line, training_line=rows[where].line)
            )
    return found


def near_pairs(rows: Iterable[Row]) -> Iterator[tuple[int, int]]:
    """Yield (earlier, later) indexes of rows that are the same or nearly; some pairs repeat.

    Joining these pairs gives the groups of near-duplicates. ``rows`` is gone through twice, and of
    more than MAX_NEAR_ROWS the first are compared.
    """
    shared = _shared_beginning(map(_question, rows))
    compared = islice(rows, MAX_NEAR_ROWS)
    return _sketched((_question(row)[shared:], row.answer) for row in compared).pairs()


def _sketched(texts: Iterable[tuple[str, str]]) -> Sketches:
    sketches = Sketches()
    for question, answer in texts:
        sketches.add(question, answer)
    return sketches


def _texts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    questions = [_question(row) for row in rows]
    shared = _shared_beginning(questions)
    return [(question[shared:], row.answer) for question, row in zip(questions, rows, strict=True)]


def _question(row: Row) -> str:
    last = max((i for i, m in enumerate(row.messages) if m["role"] == "assistant"), default=0)
    return comparable("\n".join(m["content"] for m in row.messages[:last] if m["role"] != "system"))


def _shared_beginning(texts: Iterable[str]) -> int:
    """Return how many characters all of the texts begin with."""
    count, first, last = 0, "", ""
    for count, text in enumerate(texts, start=1):
        first = text if count == 1 else min(first, text)
        last = max(last, text)
    if count < MIN_FOR_SHARED_BEGINNING:
        return 0
    # What the first and the last share, all between them share.
    different = (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return next(different, len(first))
