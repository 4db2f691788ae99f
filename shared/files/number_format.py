"""The text that Excel shows for a cell's value and number format.

Python's only libraries for this are ports of SheetJS SSF without a release in years, so the part
of it that people meet is written here. Whatever is not known raises ``Unrendered``: the raw number
is never given out in place of what the person sees.
Sources: ECMA-376 part 1, 18.8.30 and 18.8.31; SheetJS SSF (github.com/SheetJS/ssf).
"""

import re
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from shared.files import date_format
from shared.files.builtin_formats import GENERAL
from shared.files.date_format import Unrendered

MAX_CODE = 1000
_MAX_DECIMALS = 30
_TOKEN = re.compile(
    r'"(?P<quoted>[^"]*)"?|\\(?P<escaped>.)|_(?P<skip>.)|\*(?P<fill>.)|\[(?P<bracket>[^\]]*)\]'
    r"|(?P<general>General)|(?P<ampm>AM/PM|A/P)|(?P<power>E[+-])"
    r"|(?P<date>y+|m+|d+|h+|s+|g+|e+|b+|aaaa?)|(?P<digit>[0#?])|(?P<mark>[.,%/@;])"
    r"|(?P<plain>.)",
    re.IGNORECASE | re.DOTALL,
)
_ELAPSED = re.compile(r"h+|m+|s+", re.IGNORECASE)
_CONDITION = re.compile(r"(<=|>=|<>|<|>|=)(-?\d+(?:\.\d+)?)")
_COLOUR = re.compile(
    r"(black|blue|cyan|green|magenta|red|white|yellow|[黒青緑赤白黄紫水]色?|colou?r\s?\d+|色\s?\d+)",
    re.IGNORECASE,
)
_BARE = frozenset("$-+/():!^&'~{}<>= ¥￥€£")
_COMPARE = {
    "<": Decimal.__lt__, "<=": Decimal.__le__, ">": Decimal.__gt__, ">=": Decimal.__ge__,
    "=": Decimal.__eq__, "<>": Decimal.__ne__,
}  # fmt: skip


class Token(NamedTuple):
    """A piece of a format: ``kind`` is the name of a group of ``_TOKEN``, or "elapsed"."""

    kind: str
    text: str


class Section(NamedTuple):
    """One of the parts between semicolons."""

    tokens: tuple[Token, ...]
    condition: tuple[str, Decimal] | None
    locale: str

    def has(self, kind: str, text: str = "") -> bool:
        """Say whether a token of this kind (and text) is there."""
        return any(t.kind == kind and (not text or t.text == text) for t in self.tokens)

    def find(self, kind: str, text: str = "") -> int:
        """Return the place of the first such token, or the number of tokens."""
        places = (i for i, t in enumerate(self.tokens) if t.kind == kind and text in ("", t.text))
        return next(places, len(self.tokens))


def show_text(text: str, code: str) -> str:
    """Return what a cell with text shows; raise Unrendered."""
    sections = _sections(code)
    last = sections[-1]
    if len(sections) < 4 and not last.has("mark", "@"):
        return text
    return "".join(text if t == ("mark", "@") else _literal(t) for t in last.tokens)


def show_number(value: float, code: str, date1904: bool = False) -> str:
    """Return what a cell with a number shows; raise Unrendered."""
    if code == GENERAL:
        return general(value)
    exact = Decimal(f"{value:.15g}")
    section, exact = _choose(_sections(code), exact)
    if section.has("date") or section.has("elapsed"):
        return _date(section, exact, date1904).strip()
    if section.has("general") or section.has("mark", "@"):
        shown = general(abs(float(exact)))
        text = "".join(
            shown if t.kind == "general" or t == ("mark", "@") else _literal(t)
            for t in section.tokens
        )
    else:
        text = _number(section, abs(exact))
    return ("-" + text if exact < 0 and any("1" <= c <= "9" for c in text) else text).strip()


def general(value: float) -> str:
    """Return a number as a wide enough cell without a format shows it: 11 characters."""
    exact = Decimal(f"{value:.15g}")
    size = abs(exact)
    sign = "-" if exact < 0 else ""
    if size == 0:
        return "0"
    if Decimal("1e-9") <= size < Decimal("1e11"):
        rounded = _rounded(size, max(0, 10 - len(str(int(size)))))
        exact_fits = len(_trimmed(f"{size:f}")) <= 11
        if (size >= Decimal("0.0001") or exact_fits) and rounded < Decimal("1e11"):
            return sign + _trimmed(f"{rounded:f}")
    mantissa, _, power = f"{_significant(size, 6):E}".partition("E")
    return f"{sign}{_trimmed(mantissa)}E{'-' if int(power) < 0 else '+'}{abs(int(power)):02}"


def _significant(size: Decimal, digits: int) -> Decimal:
    unit = Decimal(1).scaleb(size.adjusted() - digits + 1)
    return size.quantize(unit, ROUND_HALF_UP)


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _rounded(value: Decimal, places: int) -> Decimal:
    try:
        return value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    except InvalidOperation:
        raise Unrendered("has too many digits") from None


@lru_cache(maxsize=1024)
def _sections(code: str) -> tuple[Section, ...]:
    if len(code) > MAX_CODE:
        raise Unrendered("has a format that is too long")
    parts: list[list[Token]] = [[]]
    for match in _TOKEN.finditer(code):
        token = Token(str(match.lastgroup), match[str(match.lastgroup)])
        if token == ("mark", ";"):
            parts.append([])
        else:
            parts[-1].append(token)
    if len(parts) > 4:
        raise Unrendered("has a format of more than four parts")
    return tuple(_section(part) for part in parts)


def _section(part: list[Token]) -> Section:
    tokens: list[Token] = []
    condition, locale = None, ""
    for kind, text in part:
        if kind != "bracket":
            tokens.append(Token(kind, text))
        elif text.startswith("$"):
            symbol, _, name = text[1:].partition("-")
            locale = name.lower() or locale
            tokens.append(Token("quoted", symbol))
        elif _ELAPSED.fullmatch(text):
            tokens.append(Token("elapsed", text))
        elif found := _CONDITION.fullmatch(text):
            condition = (found[1], Decimal(found[2]))
        elif not _COLOUR.fullmatch(text):
            raise Unrendered("has a format that is not known here")
    return Section(tuple(tokens), condition, locale)


def _choose(sections: tuple[Section, ...], value: Decimal) -> tuple[Section, Decimal]:
    """Return the section for a number, and the number with the sign that the section leaves."""
    if len(sections) > 1 and sections[-1].has("mark", "@"):
        sections = sections[:-1]
    if any(section.condition for section in sections):
        return _by_condition(sections, value)
    if len(sections) == 1:
        return sections[0], value
    if value < 0:
        return sections[1], -value
    if value == 0 and len(sections) > 2:
        return sections[2], value
    return sections[0], value


def _by_condition(sections: tuple[Section, ...], value: Decimal) -> tuple[Section, Decimal]:
    if value < 0:
        raise Unrendered("is negative and has a format with conditions")
    for section in sections:
        if section.condition is None or _COMPARE[section.condition[0]](value, section.condition[1]):
            return section, value
    raise Unrendered("has a format whose conditions leave it out (the cell shows ####)")


def _literal(token: Token) -> str:
    if token.kind in ("skip", "fill"):
        return ""
    if token.kind == "quoted" and token.text == "\\":
        return "¥"  # Japanese fonts draw the yen sign in its place
    if token.kind in ("quoted", "escaped"):
        return token.text
    if token.kind in ("plain", "mark") and (token.text in _BARE or not token.text.isascii()):
        return token.text
    raise Unrendered("has a format that is not known here")


def _date(section: Section, value: Decimal, date1904: bool) -> str:
    tokens = _with_fractions(section.tokens)
    digits = max((len(t.text) for t in tokens if t.kind == "fraction"), default=0)
    if digits > 3:
        raise Unrendered("has a format that is not known here")
    when = date_format.moment(value, digits, date1904)
    units = [i for i, t in enumerate(tokens) if t.kind in ("date", "elapsed")]
    twelve, shown = section.has("ampm"), []
    for place, token in enumerate(tokens):
        if token.kind == "date":
            minutes = _is_minutes(tokens, units, place)
            shown.append(date_format.part(
                token.text, when, minutes=minutes, twelve=twelve, locale=section.locale
            ))  # fmt: skip
        elif token.kind == "elapsed":
            shown.append(date_format.elapsed(token.text, when))
        elif token.kind == "fraction":
            shown.append("." + when.fraction[: len(token.text)])
        elif token.kind == "ampm":
            half = "AM" if when.seconds < 43_200 else "PM"
            shown.append(half[: 1 if len(token.text) == 3 else 2])
        else:
            # A date's points and commas are themselves.
            shown.append(token.text if token.text in (".", ",") else _literal(token))
    return "".join(shown)


def _with_fractions(tokens: tuple[Token, ...]) -> list[Token]:
    """Join a point and the zeros behind it to one token."""
    joined: list[Token] = []
    for token in tokens:
        if token == ("digit", "0") and joined and joined[-1].kind == "fraction":
            joined[-1] = Token("fraction", joined[-1].text + "0")
        elif token == ("digit", "0") and joined and joined[-1] == ("mark", "."):
            joined[-1] = Token("fraction", "0")
        else:
            joined.append(token)
    return joined


def _is_minutes(tokens: list[Token], units: list[int], place: int) -> bool:
    """Tell minutes from months: an m stands behind hours or before seconds."""
    index = units.index(place)
    before = tokens[units[index - 1]].text[0].lower() if index else ""
    after = tokens[units[index + 1]].text[0].lower() if index + 1 < len(units) else ""
    return len(tokens[place].text) < 3 and (before == "h" or after == "s")


def _number(section: Section, value: Decimal) -> str:
    tokens = list(section.tokens)
    value *= 100 ** sum(t == ("mark", "%") for t in tokens)
    if not any(t.kind == "digit" for t in tokens):
        return "".join("%" if t.text == "%" else _literal(t) for t in tokens)
    if section.has("power"):
        return _scientific(section, value)
    if ("mark", "/") in tokens:
        return _fraction(tokens, value)
    point = section.find("mark", ".")
    whole, behind = tokens[:point], tokens[point + 1 :]
    whole, grouped, thousands = _commas(whole, behind)
    places = sum(t.kind == "digit" for t in behind)
    if places > _MAX_DECIMALS:
        raise Unrendered("has too many decimal places")
    digits, _, decimals = f"{_rounded(value.scaleb(-3 * thousands), places):f}".partition(".")
    shown = _fill_whole(whole, "" if digits == "0" else digits, grouped)
    if point < len(tokens):
        shown += "." + _fill_decimals(behind, decimals)
    return shown


def _commas(whole: list[Token], behind: list[Token]) -> tuple[list[Token], bool, int]:
    """Take the commas out: one between digits groups; each behind the last divides by 1,000."""
    everything = whole + behind
    last = max(i for i, t in enumerate(everything) if t.kind == "digit")
    first = min(i for i, t in enumerate(everything) if t.kind == "digit")
    commas = [i for i, t in enumerate(everything) if t == ("mark", ",")]
    thousands = sum(1 for i in commas if i > last)
    if any(i < first for i in commas):
        raise Unrendered("has a format that is not known here")
    behind[:] = [t for t in behind if t != ("mark", ",")]
    grouped = any(first < i < last for i in commas)
    return [t for t in whole if t != ("mark", ",")], grouped, thousands


def _fill_whole(tokens: list[Token], digits: str, grouped: bool) -> str:
    """Put digits into their places from the right; the leftmost place takes what is left."""
    left = sum(t.kind == "digit" for t in tokens)
    shown: list[str] = [] if left else [digits]
    count = 0
    for token in reversed(tokens):
        if token.kind != "digit":
            shown.append("%" if token.text == "%" else _literal(token))
            continue
        left -= 1
        taken = digits if left == 0 else digits[-1:]
        digits = digits[: len(digits) - len(taken)]
        for digit in reversed(taken or {"0": "0", "?": " ", "#": ""}[token.text]):
            if grouped and count and count % 3 == 0 and digit != " ":
                shown.append(",")
            shown.append(digit)
            count += 1
    return "".join(reversed(shown))


def _fill_decimals(tokens: list[Token], decimals: str) -> str:
    kept = len(decimals.rstrip("0"))
    shown, place = [], 0
    for token in tokens:
        if token.kind != "digit":
            shown.append("%" if token.text == "%" else _literal(token))
            continue
        needed = place < kept or token.text == "0"
        shown.append(decimals[place] if needed else {"?": " ", "#": ""}[token.text])
        place += 1
    return "".join(shown)


def _scientific(section: Section, value: Decimal) -> str:
    at = section.find("power")
    mantissa, power = list(section.tokens[:at]), list(section.tokens[at + 1 :])
    point = next((i for i, t in enumerate(mantissa) if t == ("mark", ".")), len(mantissa))
    step = max(1, sum(t.kind == "digit" for t in mantissa[:point]))
    places = sum(t.kind == "digit" for t in mantissa[point:])
    exponent = (value.adjusted() if value else 0) // step * step
    if _rounded(value.scaleb(-exponent), places) >= Decimal(10) ** step:
        exponent += step
    digits, _, decimals = f"{_rounded(value.scaleb(-exponent), places):f}".partition(".")
    # 12.3E+3, not 012.3E+3: only zeros stand where no digit is.
    shown = _fill_whole(mantissa[:point], digits, grouped=False)
    if point < len(mantissa):
        shown += "." + _fill_decimals(mantissa[point + 1 :], decimals)
    sign = "-" if exponent < 0 else section.tokens[at].text[1].replace("-", "")
    return f"{shown}E{sign}{_fill_whole(power, str(abs(exponent)), grouped=False)}"


def _fraction(tokens: list[Token], value: Decimal) -> str:
    """Show ``# ?/?`` (as near as so many digits allow) or ``# ?/8``."""
    layout = "".join(t.text if t.kind in ("digit", "mark", "plain") else "~" for t in tokens)
    match = re.fullmatch(r"(?:([#0?]+) +)?([#0?]+) */ *(?:([#0?]+)|([1-9]\d*))[~ ]*", layout)
    if match is None:
        raise Unrendered("has a format that is not known here")
    exact = Fraction(value)
    if match[4]:
        below = int(match[4])
        above = int(exact * below + Fraction(1, 2))
    else:
        near = exact.limit_denominator(10 ** min(len(match[3]), 9) - 1)
        above, below = near.numerator, near.denominator
    if not match[1]:
        return f"{above}/{below}"
    whole, above = divmod(above, below)
    if not above:
        return str(whole)
    return f"{whole} {above}/{below}" if whole or "0" in match[1] else f"{above}/{below}"
