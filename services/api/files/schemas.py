"""Files as OpenAI shows them."""

from typing import Any, Literal

from pydantic import BaseModel

from shared.files.models import StoredFile
from shared.files.normalised import Message, NormalisedRow

PURPOSES = ("fine-tune", "assistants", "batch", "vision", "user_data", "evals")
"""What a caller may upload for. ``fine-tune`` is read as training rows, ``user_data`` as a
document; the others are kept as they are."""
SHOWN_CHARACTERS = 4000
"""Of each text of a row."""
MIN_EXPIRY_SECONDS = 3600
MAX_EXPIRY_SECONDS = 30 * 24 * 3600


UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"enum": list(PURPOSES)},
                        "expires_after[anchor]": {"enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": MIN_EXPIRY_SECONDS,
                            "maximum": MAX_EXPIRY_SECONDS,
                        },
                    },
                }
            }
        },
    }
}
"""For the document: the body is read part by part, not by FastAPI."""


class FileOut(BaseModel):
    """One file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: str
    status_details: str | None
    report: dict[str, Any] | None
    """Format, number of rows and warnings of a training file; kind, passages and characters of a
    document (Tailor's own key)."""
    data_report: dict[str, Any] | None
    """Figures and findings of the last job that was checked with it (Tailor's own key)."""

    @classmethod
    def of(cls, row: StoredFile) -> "FileOut":
        """Show a row."""
        return cls(
            id=row.id,
            bytes=row.bytes,
            created_at=int(row.created_at.timestamp()),
            expires_at=int(row.expires_at.timestamp()) if row.expires_at else None,
            filename=row.filename,
            # OpenAI's own clients do not know this one in an answer.
            purpose="user_data" if row.purpose == "evals" else row.purpose,
            status=row.status,
            status_details=row.status_details,
            report=row.report or None,
            data_report=row.data_report,
        )


class RowOut(BaseModel):
    """One row as it was read."""

    object: Literal["file.row"] = "file.row"
    line: int
    """In the user's own file."""
    messages: list[Message]
    """Each text's first characters."""
    cut: bool
    """Whether a text was longer."""

    @classmethod
    def of(cls, row: NormalisedRow) -> "RowOut":
        """Show a row."""
        shown = [
            message.model_copy(update={"content": message.content[:SHOWN_CHARACTERS]})
            for message in row.messages
        ]
        cut = any(len(message.content) > SHOWN_CHARACTERS for message in row.messages)
        return cls(line=row.line, messages=shown, cut=cut)


class FileDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True
