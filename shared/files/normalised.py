"""One line of rows.jsonl, the file that validation writes and the trainer reads.

``{"line": <line in the user's file>, "messages": [{"role", "content", "weight"?}], "group"?}``
"""

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict

_as_json = json.JSONEncoder(ensure_ascii=False).encode
Role = Literal["system", "user", "assistant"]


class Message(BaseModel):
    """One turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: str
    weight: Literal[0, 1] = 1
    """1: the turn is learnt, if it is the assistant's; written for those only."""


class NormalisedRow(BaseModel):
    """One row; ``line`` is the line number in the user's own file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: int
    messages: tuple[Message, ...]
    group: str | None = None
    """What the row is about, where its user says so: rows of one group stay on one side of every
    split. Written only where there is one."""

    def text(self) -> str:
        """Return the row as it is written, without the line's end."""
        return _as_json(self.model_dump(exclude_unset=True))

    def digest(self) -> str:
        """Hash of the content alone, so that equal rows at different lines are equal."""
        text = _as_json(self.model_dump()["messages"])
        return hashlib.sha256(text.encode()).hexdigest()
