"""What of a base model's folder decides how a conversation is read, with everything fixed.

The trainer, the validation and vLLM all use these files and no others: the chat template with one
date for ever, the tokenizer with its template words hidden in messages, the tokens that end a turn.
"""

import datetime
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from shared.chat.plain import marked_tokenizer, read_tokenizer

TEMPLATE_DATE = datetime.date(2024, 7, 26)
"""What a template that prints today's date prints; served and trained must not differ by the day
they happen on."""

_NOW = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


@dataclass(frozen=True)
class ChatBase:
    """A base model's chat files as Tailor uses them."""

    tokenizer: dict[str, Any]
    """Content of tokenizer.json."""
    config: dict[str, Any]
    """Content of tokenizer_config.json."""
    generation: dict[str, Any]
    """Content of generation_config.json."""
    template: str
    date: datetime.date

    @classmethod
    def read(cls, folder: Path, date: datetime.date | None = None) -> Self:
        """Read the base model in ``folder``; a date other than the fixed one is for tests."""
        date = date or TEMPLATE_DATE
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        return cls(
            tokenizer=marked_tokenizer(read_tokenizer(folder)),
            config=_json(folder / "tokenizer_config.json"),
            generation=_json(folder / "generation_config.json"),
            template=_fixed(template, date),
            date=date,
        )

    @property
    def sha256(self) -> str:
        """Hash of everything that decides token ids and the loss mask."""
        parts = [self.tokenizer, self.special_tokens, sorted(self.stop_ids), self.template]
        text = json.dumps([*parts, self.date.isoformat()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def special_tokens(self) -> dict[str, str]:
        """``bos_token`` and its like, which templates may print."""
        found = {k: v for k, v in self.config.items() if k.endswith("_token")}
        texts = {k: v["content"] if isinstance(v, dict) else v for k, v in found.items()}
        return {k: v for k, v in texts.items() if isinstance(v, str)}

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens at which the base model's own files tell vLLM to stop."""
        eos = self.special_tokens.get("eos_token")
        named = {t["id"] for t in self.tokenizer["added_tokens"] if t["content"] == eos}
        more = self.generation.get("eos_token_id") or []
        return frozenset(named | set(more if isinstance(more, list) else [more]))

    def write(self, target: Path, turn_end: int) -> None:
        """Write the files for vLLM's ``--tokenizer``, ``--chat-template``, ``--generation-config``.

        ``turn_end`` is the token that the template ends a turn with: vLLM stops there, too.
        """
        target.mkdir(parents=True, exist_ok=True)
        # The generic class reads tokenizer.json as it is; others build their own normalizer.
        config = self.config | {"tokenizer_class": "PreTrainedTokenizerFast"}
        generation = self.generation | {"eos_token_id": sorted(self.stop_ids | {turn_end})}
        for name, content in (
            ("tokenizer.json", self.tokenizer),
            ("tokenizer_config.json", config),
            ("generation_config.json", generation),
        ):
            (target / name).write_text(json.dumps(content), encoding="utf-8")
        (target / "chat_template.jinja").write_text(self.template, encoding="utf-8")


def _fixed(template: str, date: datetime.date) -> str:
    """Return the template without anything that depends on the day or on a request."""
    fixed = _NOW.sub(lambda found: json.dumps(date.strftime(found[2])), template)
    if "enable_thinking" in fixed:
        # Rows hold answers and no thoughts: what is trained and served is the mode without them.
        fixed = "{%- set enable_thinking = false -%}" + fixed
    if "strftime_now(" in fixed:
        raise ValueError("the chat template computes a date in a way that cannot be fixed")
    return fixed


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content
