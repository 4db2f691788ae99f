"""What each arm shows the model beside a question, and in which order questions are asked.

vLLM computes a prompt's beginning once where the one before began alike, so an arm is asked as a
whole, and its questions so that those with the same rows in front of them are neighbours.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.worker.comparing import prompts
from services.worker.comparing.asking import Ask
from services.worker.comparing.retrieval import Retriever, RetrieverName
from services.worker.comparing.rows import Passage, RowFile
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
COPIED_FROM: dict[Arm, RetrieverName] = {Arm.COPY_BM25: "bm25", Arm.COPY_EMBEDDING: "embedding"}


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
        passages: Sequence[Passage],
        make: Callable[[RetrieverName, Sequence[str]], Retriever],
    ) -> None:
        self.training = training
        self.visible = visible
        """Indexes of the training rows that may be shown."""
        self.passages = passages
        self._make = make
        self._ranked: dict[tuple[RetrieverName, bool], dict[int, list[int]]] = {}

    def rows(self, retriever: RetrieverName, questions: Sequence[Question]) -> dict[int, list[int]]:
        """Return by line the training rows nearest to each question, the nearest first."""
        ranked = self._ranks(retriever, questions, self._row_texts, of_passages=False)
        return {line: [self.visible[place] for place in found] for line, found in ranked.items()}

    def passages_for(
        self, retriever: RetrieverName, questions: Sequence[Question]
    ) -> dict[int, list[int]]:
        """Return by line the passages nearest to each question, the nearest first."""
        return self._ranks(retriever, questions, self._passage_texts, of_passages=True)

    def _ranks(
        self,
        retriever: RetrieverName,
        questions: Sequence[Question],
        texts: Callable[[], Sequence[str]],
        *,
        of_passages: bool,
    ) -> dict[int, list[int]]:
        key = (retriever, of_passages)
        if key not in self._ranked:
            # The index is dropped: no arm asks anything but these questions.
            index = self._make(retriever, texts())
            ranks = index.rank_all([question.text for question in questions], MOST_SHOWN)
            self._ranked[key] = dict(zip((q.line for q in questions), ranks, strict=True))
        return self._ranked[key]

    def _row_texts(self) -> list[str]:
        wanted = set(self.visible)
        return [
            prompts.searched_text(prompts.question_of(row))
            for index, row in enumerate(self.training)
            if index in wanted
        ]

    def _passage_texts(self) -> list[str]:
        return [passage.text for passage in self.passages]


@dataclass(frozen=True)
class Plan:
    """How one comparison chooses what its arms show."""

    library: Library
    retriever: RetrieverName
    seed: int

    def shown(self, arm: Arm, questions: Sequence[Question]) -> list[Shown]:
        """Return all questions of the comparison, in the order in which the arm asks them."""
        places = self._places(arm, questions)
        found = [Shown(question, places.get(question.line, ())) for question in questions]
        return sorted(found, key=lambda each: (each.places, each.question.line))

    def ask(self, arm: Arm, shown: Shown) -> Ask:
        """Build the prompt of a question in an arm that asks a model."""
        library = self.library
        if arm is Arm.DOCUMENTS:
            passages = [library.passages[place].text for place in shown.places]
            conversation = prompts.messages(shown.question.messages, passages=passages)
        else:
            rows = [library.training[place] for place in shown.places]
            conversation = prompts.messages(shown.question.messages, rows)
        return Ask(shown.question.line, conversation)

    def _places(self, arm: Arm, questions: Sequence[Question]) -> dict[int, tuple[int, ...]]:
        if arm is Arm.FEW_SHOT:
            return dict.fromkeys((question.line for question in questions), self._fixed())
        if arm is Arm.DOCUMENTS:
            found = self.library.passages_for(self.retriever, questions)
            count = PASSAGES_IN_PROMPT
        elif arm in COPIES:
            found, count = self.library.rows(COPIED_FROM[arm], questions), 1
        elif arm in ROWS_IN_PROMPT:
            found, count = self.library.rows(self.retriever, questions), ROWS_IN_PROMPT[arm]
        else:
            return {}
        return {line: tuple(ranked[:count][::-1]) for line, ranked in found.items()}

    def _fixed(self) -> tuple[int, ...]:
        visible = self.library.visible
        count = min(ROWS_IN_PROMPT[Arm.FEW_SHOT], len(visible))
        return tuple(random.Random(self.seed).sample(visible, count))
