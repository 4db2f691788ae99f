"""What can go wrong with a stack, each a sentence for the person at the terminal."""

from shared.errors import TailorError


class StackError(TailorError):
    """The stack cannot do what was asked; the message says why and what to do."""
