"""A held-out row planted among the training rows is found, exactly and with small changes."""

from shared.datareport.rows import Row
from shared.evidence.leaks import leaks, near_pairs

NOUNS = ["invoice", "parcel", "contract", "holiday", "laptop", "visitor", "printer", "badge"]
VERBS = ["approve", "return", "renew", "request", "repair", "announce", "replace", "collect"]
LONG = "You answer questions of the staff of a company in one short sentence. " * 8


def row(line: int, question: str, answer: str, system: str = LONG) -> Row:
    """One row with the company's long system message."""
    return Row(
        line,
        [
            {"role": "system", "content": system},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer, "weight": 1},
        ],
    )


ROWS = [
    row(line, f"How do I {verb} the {noun} of a colleague?", f"The {noun} desk will {verb} it.")
    for line, (noun, verb) in enumerate(((n, v) for n in NOUNS for v in VERBS), start=1)
]
QUESTION, ANSWER = "Who may open the archive in the cellar at night?", "Only the night guard may."
HELD_OUT = row(900, QUESTION, ANSWER)


def test_nothing_is_found_where_nothing_was_planted():
    assert leaks([HELD_OUT], ROWS) == []


def test_a_planted_row_is_found_exactly_and_nearly():
    planted = [
        row(501, "who may open the archive  in the cellar at night", "Only the night guard may"),
        row(502, "Who may open this archive in the cellar at night?", "Only the night guard may!"),
    ]
    exact, near = (leaks([HELD_OUT], [*ROWS, one]) for one in planted)
    assert [(leak.kind, leak.held_out_line, leak.training_line) for leak in exact + near] == [
        ("exact", 900, 501),
        ("near", 900, 502),
    ]


def test_each_held_out_row_is_named_once_in_order_the_exact_one_before_a_near_one():
    near = row(
        501, "Who may open this archive in the cellar at night?", "Only the night guard may."
    )
    found = leaks([ROWS[3], HELD_OUT], [near, *ROWS, HELD_OUT])
    assert [(leak.kind, leak.held_out_line, leak.training_line) for leak in found] == [
        ("exact", ROWS[3].line, ROWS[3].line),
        ("exact", 900, 900),
    ]


def test_rows_with_other_numbers_are_never_near():
    shelf = [
        row(
            n, f"Who of us looks after shelf {n} of the archive in the cellar of the office?", "Me."
        )
        for n in (7, 8)
    ]
    assert leaks([shelf[0]], [shelf[1]]) == []


def test_a_long_beginning_that_all_questions_share_does_not_make_them_near():
    told = [row(r.line, LONG + r.messages[1]["content"], "Yes.") for r in ROWS]
    assert leaks(told[:1], told[9:]) == []


def test_a_system_message_does_not_make_rows_near():
    told = [row(r.line, r.messages[1]["content"], "Yes.", f"{r.line} {LONG}") for r in ROWS]
    same = [row(n, r.messages[1]["content"], "Yes.", f"Staff. {LONG}") for n, r in enumerate(ROWS)]
    assert leaks(same[:1], [told[9], *same[9:]]) == []


def test_near_pairs_join_what_repeats():
    rows = [
        *ROWS[:20],
        HELD_OUT,
        row(901, "Who may open the archive in the cellar at night", "Only the night guard may."),
    ]
    assert set(near_pairs(rows)) == {(20, 21)}
