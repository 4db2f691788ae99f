"""Which texts are nearest to a question: by rare words they share, by meaning, or by both.

A retriever is an index over texts, made once; it answers with their indexes, the nearest first,
equally near ones in the order of the texts. Nothing in it is drawn: the same texts and question
give the same ranks.
"""

import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from bm25s import BM25
from numpy.typing import NDArray

from services.worker.comparing.embedding import Embedder

RetrieverName = Literal["bm25", "embedding", "hybrid"]
FUSION_K = 60
"""Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet", SIGIR 2009."""

Scores = NDArray[np.floating]
_NOT_FOUND = -np.inf

_UNSPACED = (
    "\u3005-\u3007\u3041-\u3096\u30a1-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
"""Japanese, Chinese, Thai, Lao, Burmese, Khmer: no blanks between words."""
_TERM = re.compile(rf"([{_UNSPACED}]+)|(?:(?![{_UNSPACED}])[^\W_])+")

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG


@dataclass(frozen=True)
class Retriever:
    """An index over texts."""

    scores: Callable[[Sequence[str]], Iterable[Scores]]
    """For each question a score for each text, minus infinity for what is not found at all."""

    def rank(self, question: str, k: int) -> list[int]:
        """Return the indexes of the ``k`` nearest texts (of all there are, if fewer)."""
        return self.rank_all([question], k)[0]

    def rank_all(self, questions: Sequence[str], k: int) -> list[list[int]]:
        """Return the same for each of many questions; embeds them together."""
        return [_order(scores)[:k].tolist() for scores in self.scores(questions)]


def retriever_over(
    name: RetrieverName, texts: Sequence[str], embedder: Embedder, max_texts: int
) -> tuple[Retriever, str | None]:
    """Build the retriever of that name, and return what the report must say about it.

    More than ``max_texts`` texts are not embedded; BM25 stands in.
    """
    if name == "bm25":
        return bm25(texts), None
    if len(texts) > max_texts:
        remark = f"{len(texts):,} texts are more than are embedded ({max_texts:,}); BM25 alone"
        return bm25(texts), remark
    by_meaning = embedding(texts, embedder)
    return (by_meaning if name == "embedding" else hybrid(bm25(texts), by_meaning)), None


def bm25(texts: Sequence[str]) -> Retriever:
    """Index by words, or by pairs of characters where a script has no blanks (BM25)."""
    index = BM25(backend="numpy", csc_backend="numpy", auto_compile=False)
    if texts:
        # A text without words still has its place.
        index.index([terms(text) or [""] for text in texts], show_progress=False)

    def scores(question: str) -> Scores:
        ids = index.get_tokens_ids(terms(question)) if texts else []
        found = index.get_scores_from_ids(ids) if ids else np.zeros(len(texts))
        return np.where(found > 0, found, _NOT_FOUND)

    return Retriever(lambda questions: map(scores, questions))


def embedding(texts: Sequence[str], embedder: Embedder) -> Retriever:
    """Index by meaning: the cosine of embeddings."""
    vectors = embedder.passages(texts)  # [N, D]

    def scores(questions: Sequence[str]) -> Iterator[Scores]:
        if not texts:
            return (np.zeros(0) for _ in questions)
        # Not one product for all: its sums would depend on which questions stand together.
        return (vectors @ question for question in embedder.questions(questions))

    return Retriever(scores)


def hybrid(*retrievers: Retriever) -> Retriever:
    """Join indexes over the same texts by reciprocal rank fusion.

    A text's score is the sum of 1 / (60 + its rank) over the indexes that find it, ranks from 1.
    """

    def scores(questions: Sequence[str]) -> Iterator[Scores]:
        each = [retriever.scores(questions) for retriever in retrievers]
        return (
            np.sum([*map(_reciprocal_ranks, found)], axis=0) for found in zip(*each, strict=True)
        )

    return Retriever(scores)


def terms(text: str) -> list[str]:
    """Return a text's words; where a script has no blanks, its pairs of characters."""
    found = []
    for match in _TERM.finditer(unicodedata.normalize("NFKC", text).casefold()):
        run = match[0]
        pairs = match[1] and len(run) > 1
        found += [run[i : i + 2] for i in range(len(run) - 1)] if pairs else [run]
    return found


def _order(scores: Scores) -> NDArray[np.intp]:
    return np.argsort(-scores, kind="stable")


def _sum_of(parts: Iterable[Scores]) -> Scores:
    total: Scores = np.sum(np.stack([*parts]), axis=0)
    return total


def _reciprocal_ranks(scores: Scores) -> Scores:
    ranks = np.empty(len(scores))
    ranks[_order(scores)] = np.arange(1, len(scores) + 1)
    return np.where(scores == _NOT_FOUND, 0.0, 1 / (FUSION_K + ranks))
