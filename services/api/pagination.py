"""Cursor paging as OpenAI does it: ``after`` is the id of the last item of the page before."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import AfterValidator, BaseModel
from sqlalchemy import ColumnElement, Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from shared.db import Row

AnyRow = TypeVar("AnyRow", bound=Row)
Item = TypeVar("Item")


def id_of(prefix: str) -> AfterValidator:
    """Refuse a cursor that cannot be an id of this list's items.

    The item itself may be gone: a caller may delete what it has listed, and go on.
    """
    pattern = re.compile(re.escape(prefix) + r"[0-9A-Z]{26}")

    def check(after: str | None) -> str | None:
        if after is not None and not pattern.fullmatch(after):
            raise ValueError(f"not the id of an item of this list ({prefix}…)")
        return after

    return AfterValidator(check)


Cursor = Annotated[str | None, Query(max_length=64)]
"""Narrow it to a list's items: ``Annotated[Cursor, id_of("file-")]``."""
Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]


class Listing(BaseModel, Generic[Item]):
    """One page of a list."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool = False


class EndedListing(Listing[Item], Generic[Item]):
    """A page that also names its ends, as the lists of files and checkpoints do."""

    first_id: str | None = None
    last_id: str | None = None


def page(
    session: Session,
    query: Select[AnyRow],
    key: InstrumentedAttribute[Any],
    *,
    after: Any,  # a value of ``key``, an SQL expression for one, or None
    limit: int,
    order: Order = "desc",
) -> tuple[Sequence[AnyRow], bool]:
    """Return the rows after a cursor, and whether there are more. Ids sort by creation."""
    if after is not None:
        beyond: ColumnElement[bool] = key < after if order == "desc" else key > after
        query = query.where(beyond)
    ordered = query.order_by(key.desc() if order == "desc" else key.asc())
    rows = session.scalars(ordered.limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit
