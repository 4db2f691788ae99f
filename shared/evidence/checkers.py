"""What makes an answer right: one rule for each kind of data, all between 0 (wrong) and 1 (right).

docs/evidence.md, "Checkers", says when each is honest. The rules for facts, JSON and text overlap
stand in ``facts``, ``json_values`` and ``overlap``.
"""

from collections.abc import Callable, Collection, Iterable
from enum import StrEnum
from typing import NamedTuple

from shared.evidence.facts import states_only
from shared.evidence.json_values import is_structured, same_fields, same_value
from shared.evidence.overlap import chrf, rouge_l, token_f1
from shared.evidence.text import is_unspaced, plain


class Checker(StrEnum):
    """Names of the rules."""

    EXACT = "exact"
    """The same text; blanks and the width of characters do not matter."""
    FACT = "fact"
    """Says the expected value, as whole words, and no other row's value."""
    LABEL = "label"
    """The first line is the expected label; case and final punctuation do not matter."""
    JSON = "json"
    """The same JSON value; order of keys and blanks do not matter."""
    JSON_FIELDS = "json_fields"
    """Graded: share of the JSON object's fields that are right."""
    TOKEN_F1 = "token_f1"
    """Graded: words in common with the expected answer."""
    ROUGE_L = "rouge_l"
    """Graded: words in common with the expected answer that stand in the same order."""
    CHRF = "chrf"
    """Graded: sequences of characters in common with the expected answer."""


GRADED = frozenset({Checker.JSON_FIELDS, Checker.TOKEN_F1, Checker.ROUGE_L, Checker.CHRF})
SHORT = 30
"""Characters of an answer that is a name, a code or a number rather than a sentence."""
ROWS_PER_LABEL = 5
"""Answers that come so often on average are labels."""


class Choice(NamedTuple):
    """Which checker suits the data, and why, in words for whoever uploaded it."""

    checker: Checker
    reason: str


def score(checker: str, answer: str, expected: str, values: Collection[str] = ()) -> float:
    """Return how right ``answer`` is; only ``fact`` looks at the other rows' ``values``."""
    name = Checker(checker)
    if name is Checker.FACT:
        return float(states_only(answer, expected, values))
    return float(_RULES[name](answer, expected))


def is_binary(checker: str) -> bool:
    """Say whether a checker knows only right and wrong."""
    return Checker(checker) not in GRADED


def choose(pairs: Iterable[tuple[str, str]]) -> Choice:
    """Choose by the ideal answers of (question, answer) pairs."""
    answers = [plain(answer) for _, answer in pairs]
    if not answers:
        raise ValueError("there are no answers to choose a checker by")
    distinct = len(set(answers))
    short = all(len(answer) <= SHORT for answer in answers)
    if all(map(is_structured, answers)):
        return Choice(Checker.JSON, "every answer is a JSON object or list")
    if short and distinct * ROWS_PER_LABEL <= len(answers):
        return Choice(Checker.LABEL, f"{len(answers)} answers are one of {distinct} labels")
    if short:
        return Choice(Checker.FACT, f"no answer is longer than {SHORT} characters")
    if is_unspaced(" ".join(answers)):
        return Choice(Checker.CHRF, "the answers are free text, mostly written without blanks")
    return Choice(Checker.TOKEN_F1, "the answers are free text")


def _exact(answer: str, expected: str) -> bool:
    return plain(answer) == plain(expected)


def _label(answer: str, expected: str) -> bool:
    first_line = answer.strip().partition("\n")[0]
    return _bare(first_line) == _bare(expected)


def _bare(label: str) -> str:
    return plain(label).casefold().rstrip(".,:;!?。、 ")


_RULES: dict[Checker, Callable[[str, str], float]] = {
    Checker.EXACT: _exact,
    Checker.LABEL: _label,
    Checker.JSON: same_value,
    Checker.JSON_FIELDS: same_fields,
    Checker.TOKEN_F1: token_f1,
    Checker.ROUGE_L: rouge_l,
    Checker.CHRF: chrf,
}
