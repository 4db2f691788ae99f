"""Where commands print. Names are shown as they are: rich would read ``:door:`` as an emoji."""

from datetime import UTC, datetime

from rich.console import Console

LOG_WIDTH = 150


def console() -> Console:
    """Return a console for tables: the terminal's width, or wide enough in a log or a pipe."""
    found = _plain()
    return found if found.is_terminal else _plain(width=LOG_WIDTH)


def line_console(*, stderr: bool = False) -> Console:
    """Return a console that keeps every line whole, however long."""
    return _plain(soft_wrap=True, stderr=stderr)


def date(seconds: int | None) -> str:
    """Return a time of the API as text, nothing for None."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}Z"


def _plain(*, width: int | None = None, soft_wrap: bool = False, stderr: bool = False) -> Console:
    return Console(
        width=width,
        soft_wrap=soft_wrap,
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
    )
