"""The arms of a comparison: the ways of answering that are held against one another.

All are greedy, with the same questions, answer length and checker. Retrieval looks at the training
rows, or at documents, and never at a held-out row.
"""

from enum import StrEnum


class Arm(StrEnum):
    """One way of answering."""

    COPY_BM25 = "copy_bm25"
    """The answer of the training row whose question shares most rare words; no model at all."""
    COPY_EMBEDDING = "copy_embedding"
    """The answer of the training row whose question is nearest by embedding; no model at all."""
    ZERO_SHOT = "zero_shot"
    """The base model, asked as it is."""
    FEW_SHOT = "few_shot"
    """The base model with the same five training rows, drawn by seed, before every question."""
    RETRIEVED_1 = "retrieved_1"
    """The base model with the nearest training row before the question."""
    RETRIEVED_3 = "retrieved_3"
    RETRIEVED_5 = "retrieved_5"
    DOCUMENTS = "documents"
    """The base model with the nearest passages of the documents in the prompt."""
    TUNED = "tuned"
    """The tuned model, asked as it is."""
    TUNED_RETRIEVED_3 = "tuned_retrieved_3"
    """The tuned model with the three nearest training rows before the question."""


COPIES = frozenset({Arm.COPY_BM25, Arm.COPY_EMBEDDING})
TUNED_ARMS = frozenset({Arm.TUNED, Arm.TUNED_RETRIEVED_3})
ROWS_IN_PROMPT = {
    Arm.FEW_SHOT: 5,
    Arm.RETRIEVED_1: 1,
    Arm.RETRIEVED_3: 3,
    Arm.RETRIEVED_5: 5,
    Arm.TUNED_RETRIEVED_3: 3,
}
"""Training rows before the question; the nearest one last."""
