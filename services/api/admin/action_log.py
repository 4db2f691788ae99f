"""Each action of the administrator is a log line of its own, written once it is committed."""

import logging
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import event
from sqlalchemy.orm import Session

from services.api.auth import Caller

log = logging.getLogger(__name__)


async def _admin_key_id(request: Request) -> str:
    caller: Caller = request.state.caller
    return caller.key_id


AdminKeyDep = Annotated[str, Depends(_admin_key_id)]
"""Id of the key that the action is done with."""


def log_action(session: Session, message: str, extra: dict[str, object]) -> None:
    """Write a line when ``session`` commits; what is rolled back was not done."""

    @event.listens_for(session, "after_commit", once=True)
    def write(_: Session) -> None:
        log.info(message, extra=extra)
