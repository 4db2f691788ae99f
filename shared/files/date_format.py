"""Dates and times as Excel shows them, from serial numbers: days since the end of 1899.

Day 60 of the 1900 system is the 29 February 1900 that never was; the 1904 system begins 1,462
days later. Sources: ECMA-376 part 1, 18.8.30 and 18.17.4; SheetJS SSF for Excel's habits.
"""

import datetime as dt
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

DAYS_TO_1904 = 1462
LAST_DAY = 2_958_465
"""31 December 9999."""
_FIRST_REAL_DAY = 60
_SECONDS_A_DAY = 86_400
_ERAS = (
    (dt.date(2019, 5, 1), "R", "令和"),
    (dt.date(1989, 1, 8), "H", "平成"),
    (dt.date(1926, 12, 25), "S", "昭和"),
    (dt.date(1912, 7, 30), "T", "大正"),
    (dt.date(1868, 1, 25), "M", "明治"),
)
_MONTHS = "January February March April May June July August September October November December"
_WEEKDAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday"
_KANJI_WEEKDAYS = "日月火水木金土"
_JAPANESE = ("411", "ja-jp")
_ENGLISH = ("409", "809", "en-us", "en-gb", "f800", "f400")


class Unrendered(ValueError):
    """What Excel shows for this number and format is not known here; the message says why."""


class Moment(NamedTuple):
    """A serial number taken apart."""

    year: int
    month: int
    day: int
    weekday: int
    """0: Sunday."""
    seconds: int
    """Since midnight."""
    fraction: str
    """Digits behind the seconds."""
    total: int
    """Seconds since day 0, for elapsed times."""


def moment(serial: Decimal, digits: int, date1904: bool) -> Moment:
    """Take a serial number apart, rounded to ``digits`` digits behind the second."""
    if date1904:
        serial += DAYS_TO_1904
    if serial < 0 or serial >= LAST_DAY + 1:
        raise Unrendered("is outside of Excel's calendar (the cell shows ####)")
    unit = Decimal(10) ** -digits
    exact = (serial * _SECONDS_A_DAY).quantize(unit, ROUND_HALF_UP)
    total = int(exact)
    fraction = str(exact - total)[2:] if digits else ""
    days, seconds = divmod(total, _SECONDS_A_DAY)
    if date1904:
        total -= DAYS_TO_1904 * _SECONDS_A_DAY
    return Moment(*_calendar(days), (days - 1) % 7, seconds, fraction, total)


def _calendar(days: int) -> tuple[int, int, int]:
    if days == 0:
        return 1900, 1, 0
    if days == _FIRST_REAL_DAY:
        return 1900, 2, 29
    start = dt.date(1899, 12, 31 if days < _FIRST_REAL_DAY else 30)
    date = start + dt.timedelta(days=days)
    return date.year, date.month, date.day


def part(code: str, when: Moment, *, minutes: bool, twelve: bool, locale: str) -> str:
    """Return one piece of a date: ``code`` is a run of one letter, such as ``yyyy``."""
    letter, width = code[0].lower(), len(code)
    if letter == "y":
        return f"{when.year % 100:02}" if width < 3 else f"{when.year:04}"
    if letter in "hs" or (letter == "m" and minutes):
        return f"{_clock(letter, when, twelve):0{min(width, 2)}}"
    if letter in "md":
        return _month(width, when, locale) if letter == "m" else _day(width, when, locale)
    if letter == "a":
        return _KANJI_WEEKDAYS[when.weekday] + ("曜日" if width > 3 else "")
    if letter in "ge":
        return _era(letter, width, when, locale)
    raise Unrendered("has a calendar that is not known here")


def elapsed(code: str, when: Moment) -> str:
    """Return elapsed hours, minutes or seconds, such as ``[h]``: they run past 24 or 60."""
    unit = {"h": 3600, "m": 60, "s": 1}[code[0].lower()]
    return f"{when.total // unit:0{len(code)}}"


def _clock(letter: str, when: Moment, twelve: bool) -> int:
    if letter == "m":
        return when.seconds // 60 % 60
    if letter == "s":
        return when.seconds % 60
    hour = when.seconds // 3600
    return (hour - 1) % 12 + 1 if twelve else hour


def _month(width: int, when: Moment, locale: str) -> str:
    if width < 3:
        return f"{when.month:0{width}}"
    name = _english(_MONTHS, when.month - 1, locale)
    return {3: name[:3], 4: name}.get(width, name[:1])


def _day(width: int, when: Moment, locale: str) -> str:
    if width < 3:
        return f"{when.day:0{width}}"
    name = _english(_WEEKDAYS, when.weekday, locale)
    return name[:3] if width == 3 else name


def _english(names: str, index: int, locale: str) -> str:
    if locale and not locale.endswith(_ENGLISH):
        raise Unrendered("has a month or weekday in words of another language")
    return names.split()[index]


def _era(letter: str, width: int, when: Moment, locale: str) -> str:
    gannen = "gannen" in locale
    if not (gannen or locale.endswith(_JAPANESE)):
        raise Unrendered("has an era date without its country")
    # The made-up days of 1900 are of Meiji, too.
    date = dt.date(when.year, when.month, min(max(when.day, 1), 28)) if when.year == 1900 else None
    date = date or dt.date(when.year, when.month, when.day)
    start, initial, name = next(era for era in _ERAS if date >= era[0])
    if letter == "g":
        return {1: initial, 2: name[:1]}.get(width, name)
    year = date.year - start.year + 1
    return "元" if gannen and year == 1 else f"{year:0{min(width, 2)}}"
