"""What reading a document found."""

from typing import Literal

from pydantic import BaseModel

Kind = Literal["text", "markdown", "html", "pdf", "docx"]


class DocumentReport(BaseModel):
    """What is in a document. Usable when there is no error."""

    kind: Kind | None = None
    passages: int = 0
    characters: int = 0
    warnings: list[str] = []
    error: str | None = None
