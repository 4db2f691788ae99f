"""A conversation becomes token ids and a loss mask: in training, validation and serving alike.

Only what serving would generate carries a loss: an answer's text and the token that ends its turn,
for assistant messages with weight 1.
"""

import datetime
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Encoding, Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from shared.chat.base import ChatBase
from shared.chat.plain import PlainText, template_words

Turn = Mapping[str, Any]
"""``role``, ``content`` and, for an assistant's turn, perhaps ``weight`` (1 unless given)."""

_EVERY_PREFIX = 16
"""Up to this many answers each prompt is compared; of more, the first, second, fourth … and last:
each comparison renders the conversation so far."""
_PROBE = "\ufdd1"


class Unmaskable(ValueError):
    """Why a row cannot be trained, in the user's words; holds nothing of the row's text."""


class TooLong(Unmaskable):
    """More tokens than the base model's context takes."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation, and which of them are learnt."""

    token_ids: list[int]
    answers: list[int]
    """Indices of the tokens that carry a loss, ascending; never 0."""


class ChatEncoder:
    """Encodes conversations for one base model; loads no torch."""

    def __init__(self, folder: Path, date: datetime.date | None = None) -> None:
        self.base = ChatBase.read(folder, date)
        self.template_date = self.base.date
        self.sha256 = self.base.sha256
        self._tokenizer = Tokenizer.from_str(json.dumps(self.base.tokenizer))
        self._added = {t["id"]: t["content"] for t in self.base.tokenizer["added_tokens"]}
        self.words = template_words(self.base.tokenizer)
        """Added tokens, which inside a message are plain text."""
        self.plain = PlainText(self.words)
        """Marks them there; see plain.py."""
        self._longest_token = max(map(len, self._tokenizer.get_vocab()))
        self._header, self._lead = self._find_header()
        self._closing, self.turn_end = self._find_closing()

    def encode(self, messages: Sequence[Turn], limit: int | None = None) -> Encoded:
        """Return token ids and mask; raise Unmaskable, or TooLong beyond ``limit`` tokens."""
        if limit is not None:
            self._refuse_obviously_long(messages, limit)
        turns = self._turns(messages)
        text = self._render(turns)
        learnt = [i for i, m in enumerate(messages) if m["role"] == "assistant" and _weight(m)]
        if not learnt:
            raise Unmaskable("it has no assistant message to learn from (with weight 1)")
        spans = self._spans(turns, learnt, text)
        ids, offsets = self._tokens(text, [start for start, _ in spans])
        _refuse_long(ids, limit)
        return Encoded(ids, _inside(offsets, spans))

    def prompt(self, messages: Sequence[Turn], limit: int | None = None) -> list[int]:
        """Return the ids after which serving generates the next answer; raise as ``encode``."""
        if limit is not None:
            self._refuse_obviously_long(messages, limit)
        ids: list[int] = self._encode(self._render(self._turns(messages), prompt=True)).ids
        _refuse_long(ids, limit)
        return ids

    def text_ids(self, text: str) -> list[int]:
        """Return the token ids of a text that is no conversation."""
        ids: list[int] = self._encode(text).ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, template words included; half a character becomes U+FFFD."""
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=False)
        return text

    def _turns(self, messages: Sequence[Turn]) -> list[dict[str, str]]:
        return [{"role": m["role"], "content": self.plain(m["content"])} for m in messages]

    def _refuse_obviously_long(self, messages: Sequence[Turn], limit: int) -> None:
        """Each answer ends with a token of its own, and a token has only so many characters."""
        answers = sum(message["role"] == "assistant" for message in messages)
        size = sum(len(message["content"]) for message in messages)
        if answers > limit or size > limit * self._longest_token:
            raise TooLong(f"it is far longer than the {limit} tokens that fit")

    def _render(self, turns: Sequence[Turn], *, prompt: bool = False) -> str:
        try:
            rendered, _ = render_jinja_template(
                conversations=[turns],
                chat_template=self.base.template,
                add_generation_prompt=prompt,
                **self.base.special_tokens,
            )
        except Exception as error:  # noqa: BLE001  a template may raise anything
            # Only what a template raises by itself is known to hold nothing of the row.
            said = str(error) if type(error) is TemplateError else type(error).__name__
            raise Unmaskable(f"the base model's chat template refuses it: {said}") from None
        return str(rendered[0])

    def _encode(self, text: str) -> Encoding:
        try:
            return self._tokenizer.encode(text, add_special_tokens=False)
        except UnicodeEncodeError:
            raise Unmaskable("it holds half of a surrogate pair (a broken emoji)") from None

    def _tokens(self, text: str, starts: list[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Return ids and character offsets, with answers beginning at ``starts``.

        Serving reads a prompt by itself. Where its last blanks become other tokens when an answer
        follows, prompt and answer are read apart.
        """
        whole = self._encode(text)
        ids, offsets = whole.ids, whole.offsets
        cuts = {start for start in starts if _is_within_a_token(offsets, start)}
        if not cuts and not self._continues(text, starts[-1], ids, offsets):
            cuts = set(starts)
        if not cuts:
            return ids, offsets
        ids, offsets = [], []
        for begin, end in pairwise([0, *sorted(cuts), len(text)]):
            part = self._encode(text[begin:end])
            ids += part.ids
            offsets += [(begin + a, begin + b) for a, b in part.offsets]
        return ids, offsets

    def _continues(
        self, text: str, start: int, ids: list[int], offsets: list[tuple[int, int]]
    ) -> bool:
        """Say whether the prompt before ``start``, read alone, has the tokens it has in ``text``.

        What stands before an added token is read apart from what follows, so the part from the last
        one on decides.
        """
        first = bisect_left(offsets, (start,))
        while first:
            first -= 1
            begin, end = offsets[first]
            if self._added.get(ids[first]) == text[begin:end]:
                break
        begin = offsets[first][0] if first else 0
        prompt: list[int] = self._encode(text[begin:start]).ids
        return ids[first : first + len(prompt)] == prompt

    def _spans(self, turns: Sequence[Turn], learnt: list[int], text: str) -> list[tuple[int, int]]:
        """Characters of ``text`` that each learnt answer takes, its end of turn included."""
        compared = set(_compared(learnt))
        spans: list[tuple[int, int]] = []
        for index in learnt:
            after = spans[-1][1] if spans else 0
            answer = turns[index]["content"]
            if index in compared:
                start = self._behind_prompt(turns[:index], text)
            else:
                start = self._behind_header(answer, text, after)
            ends = [e for e in self._ends(answer) if start >= after and text.startswith(e, start)]
            if not ends:
                raise Unmaskable(
                    f"the base model's chat template changes or rewrites assistant message "
                    f"{index + 1}, so that it cannot be learnt; give it weight 0 or leave it out"
                )
            spans.append((start, start + len(ends[0])))
        return spans

    def _behind_prompt(self, before: Sequence[Turn], text: str) -> int:
        """Where the answer begins that serving generates after ``before``; -1 if nowhere."""
        prompt = self._render(before, prompt=True)
        return len(prompt) if text.startswith(prompt) else -1

    def _behind_header(self, answer: str, text: str, after: int) -> int:
        for end in self._ends(answer):
            if self._header and (found := text.find(self._header + end, after)) >= 0:
                return found + len(self._header)
        return -1

    def _ends(self, answer: str) -> list[str]:
        """How an answer may stand in the text: as it is, or stripped by the template."""
        forms = (answer, answer.rstrip(), answer.lstrip(), answer.strip())
        return [self._lead + form + self._closing for form in forms]

    def _find_header(self) -> tuple[str, str]:
        """What opens an answer, and what the template then writes before it: learnt, too.

        The first is empty where a prompt is no continuation of its conversation.
        """
        asked = [{"role": "user", "content": "x"}]
        text, prompt = self._render(asked), self._render(asked, prompt=True)
        answered = self._render([*asked, {"role": "assistant", "content": _PROBE}])
        header = prompt.removeprefix(text) if prompt.startswith(text) else ""
        behind = answered.removeprefix(prompt) if answered.startswith(prompt) else _PROBE
        return header, behind.partition(_PROBE)[0]

    def _find_closing(self) -> tuple[str, int]:
        """What stands behind an answer up to the token that ends its turn, and that token."""
        asked = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _PROBE}]
        last = self._render(asked).partition(_PROBE)[2]
        followed = self._render([*asked, asked[0]]).partition(_PROBE)[2]
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(last, followed, strict=False))
        shared = "".join(character for character, _ in pairs)
        encoded = self._tokenizer.encode(shared, add_special_tokens=False)
        for token, (_, end) in zip(encoded.ids, encoded.offsets, strict=True):
            if token in self._added:
                return shared[:end], token
        raise ValueError("the base model's chat template ends no turn with a token of its own")


def _refuse_long(ids: list[int], limit: int | None) -> None:
    if limit is not None and len(ids) > limit:
        raise TooLong(f"it has {len(ids)} tokens; at most {limit} fit")


def _weight(message: Turn) -> int:
    return int(message.get("weight", 1))


def _compared(learnt: list[int]) -> list[int]:
    """Answers whose prompt is rendered by itself; the first message of all has none."""
    chosen = learnt
    if len(learnt) > _EVERY_PREFIX:
        chosen = [learnt[2**n - 1] for n in range(len(learnt).bit_length() - 1)] + learnt[-1:]
    return [index for index in chosen if index > 0]


def _is_within_a_token(offsets: list[tuple[int, int]], place: int) -> bool:
    before = bisect_left(offsets, (place,)) - 1
    return before >= 0 and offsets[before][1] > place


def _inside(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[int]:
    """Indices of the tokens inside one of the spans; both ascend."""
    found: list[int] = []
    for start, end in spans:
        index = max(1, bisect_left(offsets, (start,)))
        while index < len(offsets) and offsets[index][0] < end and offsets[index][1] <= end:
            found.append(index)
            index += 1
    return found
