"""A file's bytes, whole or the part that ``Range`` asks for."""

from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from shared.errors import InvalidRequest, TailorError


class RangeNotSatisfiable(TailorError):
    """The file has no such part."""

    status = 416
    type = "invalid_request_error"
    default_code = "range_not_satisfiable"


class Content(FileResponse):
    """Starlette reads ``Range`` while it sends, and refuses in plain text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file; raise RangeNotSatisfiable or InvalidRequest instead of a refusal."""

        async def checked(message: Message) -> None:
            status = message.get("status")
            if status == 416:
                raise RangeNotSatisfiable("The file ends before the range begins.", "Range")
            if status == 400:
                raise InvalidRequest("The header Range is not one of bytes.", "Range")
            await send(message)

        await super().__call__(scope, receive, checked)
