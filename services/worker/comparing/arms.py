"""What each arm shows the model beside a question, and in which order questions are asked.

vLLM computes a prompt's beginning once where the one before began alike, so an arm is asked as a
whole, and its questions so that those with the same rows in front of them are neighbours.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.worker.comparing import prompts
from services.worker.comparing.asking import Ask
from services.worker.comparing.retrieval import Retriever
from services.worker.comparing.rows import RowFile
from shared.evidence.arms import COPIES, ROWS_IN_PROMPT, Arm
from shared.files.normalised import Message

PASSAGES_IN_PROMPT = 3
MOST_SHOWN = max(*ROWS_IN_PROMPT.values(), PASSAGES_IN_PROMPT)
CHEAP_FIRST = (
    Arm.COPY_BM25,
    Arm.COPY_EMBEDDING,
    Arm.ZERO_SHOT,
    Arm.TUNED,
    Arm.FEW_SHOT,
    Arm.RETRIEVED_1,
    Arm.DOCUMENTS,
    Arm.RETRIEVED_3,
    Arm.TUNED_RETRIEVED_3,
    Arm.RETRIEVED_5,
)
COPIED_FROM = {Arm.COPY_BM25: "bm25", Arm.COPY_EMBEDDING: "embedding"}


@dataclass(frozen=True)
class Question:
    """A held-out row."""

    line: int
    """In its file; names the question."""
    messages: tuple[Message, ...]
    """All before the answer."""
    expected: str
    cluster: int
    """Questions of one fact, document or near-duplicate group have the same."""

    @property
    def text(self) -> str:
        """By which rows and passages are looked for."""
        return prompts.searched_text(self.messages)


@dataclass(frozen=True)
class Shown:
    """A question with what an arm shows beside it: rows or passages, the nearest last."""

    question: Question
    places: tuple[int, ...] = ()
    """Indexes of training rows; of passages in the arm of documents."""


class Library:
    """What may be looked at: training rows without held-out ones, and passages of documents."""

    def __init__(
        self,
        training: RowFile,
        visible: Sequence[int],
        passages: Sequence[str],
        make: Callable[[str, Sequence[str]], Retriever],
    ) -> None:
        self.training = training
        self.visible = visible
        """Indexes of the training rows that may be shown."""
        self.passages = passages
        self._make = make
        self._made: dict[tuple[str, bool], Retriever] = {}
        self._ranked: dict[tuple[str, bool, int], list[int]] = {}

    def rows(self, retriever: str, question: Question, count: int) -> list[int]:
        """Return the training rows nearest to a question, the nearest first."""
        found = self._ranks(retriever, question, of_passages=False)[:count]
        return [self.visible[place] for place in found]

    def passages_for(self, retriever: str, question: Question, count: int) -> list[int]:
        """Return the passages nearest to a question, the nearest first."""
        return self._ranks(retriever, question, of_passages=True)[:count]

    def _ranks(self, retriever: str, question: Question, *, of_passages: bool) -> list[int]:
        key = (retriever, of_passages, question.line)
        if key not in self._ranked:
            index = self._index(retriever, of_passages=of_passages)
            self._ranked[key] = index.rank(question.text, MOST_SHOWN)
        return self._ranked[key]

    def _index(self, retriever: str, *, of_passages: bool) -> Retriever:
        key = (retriever, of_passages)
        if key not in self._made:
            texts = self.passages if of_passages else self._row_texts()
            self._made[key] = self._make(retriever, texts)
        return self._made[key]

    def _row_texts(self) -> list[str]:
        wanted = set(self.visible)
        return [
            prompts.searched_text(prompts.question_of(row))
            for index, row in enumerate(self.training)
            if index in wanted
        ]


@dataclass(frozen=True)
class Plan:
    """How one comparison chooses what its arms show."""

    library: Library
    retriever: str
    seed: int

    def shown(self, arm: Arm, questions: Sequence[Question]) -> list[Shown]:
        """Return the questions in the order in which the arm asks them."""
        found = [Shown(question, self._places(arm, question)) for question in questions]
        return sorted(found, key=lambda each: (each.places, each.question.line))

    def ask(self, arm: Arm, shown: Shown) -> Ask:
        """Build the prompt of a question in an arm that asks a model."""
        library = self.library
        if arm is Arm.DOCUMENTS:
            passages = [library.passages[place] for place in shown.places]
            conversation = prompts.messages(shown.question.messages, passages=passages)
        else:
            rows = [library.training[place] for place in shown.places]
            conversation = prompts.messages(shown.question.messages, rows)
        return Ask(shown.question.line, conversation)

    def _places(self, arm: Arm, question: Question) -> tuple[int, ...]:
        if arm in COPIES:
            return tuple(self.library.rows(COPIED_FROM[arm], question, 1))
        if arm is Arm.FEW_SHOT:
            return self._fixed()
        if arm is Arm.DOCUMENTS:
            return tuple(
                self.library.passages_for(self.retriever, question, PASSAGES_IN_PROMPT)[::-1]
            )
        count = ROWS_IN_PROMPT.get(arm, 0)
        return tuple(self.library.rows(self.retriever, question, count)[::-1]) if count else ()

    def _fixed(self) -> tuple[int, ...]:
        visible = self.library.visible
        count = min(ROWS_IN_PROMPT[Arm.FEW_SHOT], len(visible))
        return tuple(random.Random(self.seed).sample(visible, count))


