"""Where commands print: as wide as the terminal, or wide enough for a table in a log or a pipe."""

from rich.console import Console

LOG_WIDTH = 150


def console() -> Console:
    """Return a console on stdout."""
    found = Console()
    return found if found.is_terminal else Console(width=LOG_WIDTH)
