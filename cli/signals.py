"""Signals that end a command: all like Ctrl-C, and none any more once it cleans up."""

import signal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_signals() -> None:
    """Let SIGTERM and a closed terminal end the command as Ctrl-C does."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as SIGHUP is under nohup
            signal.signal(number, signal.default_int_handler)


def ignore_signals() -> None:
    """Let nothing interrupt what is stopped or removed from now on."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
