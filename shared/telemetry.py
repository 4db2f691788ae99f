"""JSON logs on stderr with tenant, job and request ids; never prompts, rows or keys.

Each line of ours has an ``event``, a name that does not change; docs/operations.md lists them.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_context: ContextVar[dict[str, str] | None] = ContextVar("tailor_log_context", default=None)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, service, logger, event, message, bound ids, data."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        """Render ``record``; exceptions become their type and traceback, on the same line."""
        entry: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "service": self.service,
            "logger": record.name,
            **_event_of(record),
            "message": record.getMessage(),
            **(_context.get() or {}),
        }
        data = getattr(record, "data", None)
        if isinstance(data, dict):
            entry.update(data)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def log_event(event: str, /, **data: object) -> dict[str, object]:
    """Return the ``extra`` of a log call: the line's stable name, and what it tells besides.

    The call's message is for people and may change.
    """
    return {"event": event, "data": data}


def configure_logging(service: str, level: str = "INFO") -> None:
    """Send every log record of this process to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # It logs every request's address at INFO, also the probe's every few seconds.
    logging.getLogger("httpx").setLevel(logging.WARNING)


@contextmanager
def log_context(**ids: str) -> Iterator[None]:
    """Bind ids (``tenant_id=…``, ``job_id=…``, ``request_id=…``) to all records logged inside."""
    token = _context.set({**(_context.get() or {}), **ids})
    try:
        yield
    finally:
        _context.reset(token)


def _event_of(record: logging.LogRecord) -> dict[str, str]:
    """Return the line's name; a library's lines have none."""
    event = getattr(record, "event", None)
    return {"event": event} if isinstance(event, str) else {}
