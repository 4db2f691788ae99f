"""How a report's figures are written: the same in the page, the terminal and in Markdown."""

from shared.evidence.report import ArmResult, Interval

NONE = "–"
MINUS = "−"


def score(value: float, *, binary: bool) -> str:
    """Return ``94.0%`` for a share, ``0.873`` for a graded score."""
    return f"{value:.1%}" if binary else f"{value:.3f}"


def score_interval(interval: Interval, *, binary: bool) -> str:
    """Return ``83.8–97.9`` for a share, ``0.841–0.902`` for a graded score."""
    low, high = (f"{100 * x:.1f}" if binary else f"{x:.3f}" for x in (interval.low, interval.high))
    return f"{low}–{high}"


def difference(value: float, *, binary: bool) -> str:
    """Return a signed difference: ``−6.0`` (points) for shares, ``+0.061`` for graded scores."""
    return signed(100 * value, 1) if binary else signed(value, 3)


def difference_interval(interval: Interval, *, binary: bool, to: str = "to") -> str:
    """Return both ends, signed, as ``−14.0 to +2.0``."""
    low, high = (difference(x, binary=binary) for x in (interval.low, interval.high))
    return f"{low} {to} {high}"


def signed(value: float, digits: int) -> str:
    """Return a number with its sign (a real minus); nothing is ``0.0`` without one."""
    text = f"{value:+,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        return text[1:]
    return text.replace("-", MINUS)


def p_value(p: float | None) -> str:
    """Return ``0.031``, ``<0.001``, or a dash where there is no test."""
    if p is None:
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def tokens(mean: float) -> str:
    """Return a mean count of tokens, rounded."""
    return f"{mean:,.0f}"


def tokens_per_thousand(arm: ArmResult) -> str:
    """Return the tokens of 1,000 answers, prompts included."""
    return f"{1000 * (arm.prompt_tokens + arm.completion_tokens):,.0f}"


def seconds(value: float | None) -> str:
    """Return ``0.12``, or a dash where nothing was timed."""
    return NONE if value is None else f"{value:.2f}"


def right(arm: ArmResult) -> str:
    """Return ``47/50``, or the number of questions where answers are graded."""
    return f"{arm.questions:,}" if arm.right is None else f"{arm.right:,}/{arm.questions:,}"


def count(number: int) -> str:
    """Return a whole number with its thousands marked."""
    return f"{number:,}"


def size(value: float, *, binary: bool) -> str:
    """Return a difference without sign: ``6.3`` (points), ``0.063`` for graded scores."""
    return f"{100 * value:.1f}" if binary else f"{value:.3f}"


def signless(value: float) -> str:
    """Return a whole number; below zero with a real minus."""
    return f"{value:,.0f}".replace("-", MINUS)


def duration(value: float, language: str) -> str:
    """Return ``4 min 12 s`` or ``4分12秒``, with hours from one on."""
    hours, rest = divmod(round(value), 3600)
    minutes, seconds_left = divmod(rest, 60)
    units = ("時間", "分", "秒") if language == "ja" else (" h", " min", " s")
    parts = (hours, minutes, seconds_left)
    first = next((i for i, part in enumerate(parts) if part), 2)
    separator = "" if language == "ja" else " "
    return separator.join(f"{parts[i]}{units[i]}" for i in range(first, 3))
