"""How much an answer has in common with the expected one: token F1, ROUGE-L, chrF.

Each is an F-measure between 0 and 1. The libraries that have them bring lxml (sacrebleu) or nltk
(rouge-score); their formulas take a few lines, and tests hold them against figures of both.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from shared.evidence.text import UNSPACED, plain

CHRF_ORDER = 6
CHRF_BETA = 2
"""How much more recall counts than precision."""


def token_f1(answer: str, expected: str) -> float:
    """Return the F1 of the tokens in common, as SQuAD's evaluation does (Rajpurkar et al. 2016).

    Without case, punctuation and English articles. Text without blanks is compared by pairs of
    neighbouring characters.
    """
    found, wanted = Counter(_bigrams(answer)), Counter(_bigrams(expected))
    return _f((found & wanted).total(), found.total(), wanted.total())


def rouge_l(answer: str, expected: str) -> float:
    """Return the F1 of the longest common subsequence of tokens (Lin 2004, ROUGE-L).

    Text without blanks is compared by characters.
    """
    found, wanted = _characters(answer), _characters(expected)
    return _f(_common_subsequence(found, wanted), len(found), len(wanted))


def chrf(answer: str, expected: str) -> float:
    """Return chrF2 (Popović 2015) of one sentence, as sacrebleu's default: no blanks, n = 1 to 6.

    Precision and recall are averaged over the orders that both texts are long enough for.
    """
    found, wanted = ("".join(plain(text).split()) for text in (answer, expected))
    orders = range(1, min(CHRF_ORDER, len(found), len(wanted)) + 1)
    shares = [_shares(_ngrams(found, n), _ngrams(wanted, n)) for n in orders]
    if not shares:
        return 0.0
    precision, recall = (sum(column) / len(shares) for column in zip(*shares, strict=True))
    weighted = CHRF_BETA**2 * precision + recall
    return (1 + CHRF_BETA**2) * precision * recall / weighted if weighted else 0.0


def _f(common: int, found: int, wanted: int) -> float:
    if not found and not wanted:
        return 1.0
    return 2 * common / (found + wanted)


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def _shares(found: Counter[str], wanted: Counter[str]) -> tuple[float, float]:
    common = (found & wanted).total()
    return common / found.total(), common / wanted.total()


def _bigrams(text: str) -> list[str]:
    return [token for run in _runs(text) for token in _pairs(run)]


def _pairs(run: str) -> list[str]:
    if not re.match(f"[{UNSPACED}]", run) or len(run) == 1:
        return [run]
    return [a + b for a, b in pairwise(run)]


def _characters(text: str) -> list[str]:
    return [t for run in _runs(text) for t in (run if re.match(f"[{UNSPACED}]", run) else [run])]


def _runs(text: str) -> list[str]:
    """Return the words, and the pieces written without blanks; 1.5 and LS-5 are one word each."""
    return [run for run in _RUN.findall(plain(text).casefold()) if run not in _ARTICLES]


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, a row of the table at a time."""
    lengths = [0] * (len(other) + 1)
    for token in one:
        before = lengths
        lengths = [0]
        for j, candidate in enumerate(other):
            same = before[j] + 1 if token == candidate else max(before[j + 1], lengths[j])
            lengths.append(same)
    return lengths[-1]


_LETTER = rf"[^\W{UNSPACED}]"
_RUN = re.compile(rf"[{UNSPACED}]+|{_LETTER}+(?:[.,:/-]{_LETTER}+)*")
_ARTICLES = frozenset({"a", "an", "the"})
