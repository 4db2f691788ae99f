"""What a model is asked: the question alone, or behind rows or passages that may help.

* Rows stand as earlier turns of the same conversation: a model that was made for conversations goes
  on as it seems to have answered before, in form and in facts. The nearest row stands last, beside
  the question, because small models lean on what they read last.
* The question's own system message stays first, so that every arm has the same one; those of the
  rows are left out.
* Passages stand in the user's message, before the question. In a system message they would take the
  place of the one that many chat templates put where there is none.
"""

from collections.abc import Iterable, Sequence

from shared.files.normalised import Message, NormalisedRow

Turn = dict[str, str]
PASSAGES_HEADING = "Context:"
QUESTION_HEADING = "Question:"
LEAST_TOKENS, MOST_TOKENS = 32, 512
BYTES_PER_TOKEN = 2
"""Fewer than tokens have in any language, so that no right answer is cut."""


def question_of(row: NormalisedRow) -> tuple[Message, ...]:
    """Return all that stands before the last answer; empty where there is no answer."""
    return row.messages[: _answer_index(row)]


def expected_of(row: NormalisedRow) -> str:
    """Return the last answer; empty where there is none."""
    messages = row.messages[_answer_index(row) :]
    return messages[0].content if messages and messages[0].role == "assistant" else ""


def is_askable(row: NormalisedRow) -> bool:
    """Say whether the row has an answer, and a user's message before it."""
    return any(message.role == "user" for message in question_of(row))


def searched_text(question: Iterable[Message]) -> str:
    """Return the text by which rows are looked for: without the system message, mostly the same."""
    return "\n".join(message.content for message in question if message.role != "system")


def messages(
    question: Sequence[Message],
    rows: Iterable[NormalisedRow] = (),
    passages: Sequence[str] = (),
) -> list[Turn]:
    """Return the conversation to be answered; ``rows`` and ``passages`` in the order they stand."""
    system = [message for message in question if message.role == "system"]
    asked = [_turn(message) for message in question if message.role != "system"]
    shown = [_turn(message) for row in rows for message in _shown(row)]
    if passages:
        asked[-1] = {"role": "user", "content": _behind(passages, asked[-1]["content"])}
    return [*map(_turn, system), *shown, *asked]


def answer_length(expected: Iterable[str]) -> int:
    """Return how many tokens an answer may have: as many as the longest expected one needs."""
    longest = max(len(text.encode()) for text in expected)
    return min(MOST_TOKENS, max(LEAST_TOKENS, longest // BYTES_PER_TOKEN))


def _shown(row: NormalisedRow) -> list[Message]:
    kept = row.messages[: _answer_index(row) + 1]
    return [message for message in kept if message.role != "system"]


def _answer_index(row: NormalisedRow) -> int:
    found = [i for i, message in enumerate(row.messages) if message.role == "assistant"]
    return found[-1] if found else 0


def _behind(passages: Sequence[str], question: str) -> str:
    return "\n\n".join([PASSAGES_HEADING, *passages, f"{QUESTION_HEADING} {question}"])


def _turn(message: Message) -> Turn:
    return {"role": message.role, "content": message.content}
