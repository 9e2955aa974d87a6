"""Dates and times as people and spreadsheets write them.

Whether 1/2/2024 is in January or February is for the whole column to say: see ``column_format``.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["WrittenDate", "lacks_year_or_day", "parse_compact", "parse_date", "parse_time"]

# By month, in English, German, French, Spanish, Italian, Portuguese and Dutch; and what is written
# short. No name is of two months.
_NAMES = (
    "january januar jänner janvier enero gennaio janeiro januari jan janv ene gen",
    "february februar février fevrier febrero febbraio fevereiro februari feb febr févr fev fevr",
    "march märz maerz mars marzo março marco maart mar mär mrz maa",
    "april avril abril aprile apr avr abr",
    "may mai mayo maggio maio mei mag",
    "june juni juin junio giugno junho jun giu",
    "july juli juillet julio luglio julho jul juil lug",
    "august août aout agosto augustus aug ago",
    "september septembre septiembre setiembre settembre setembro sep sept set",
    "october oktober octobre octubre ottobre outubro oct okt ott out",
    "november novembre noviembre novembro nov",
    "december dezember décembre decembre diciembre dicembre dezembro dec dez déc dic",
)
_MONTHS = {name: number for number, names in enumerate(_NAMES, 1) for name in names.split()}
_MONTH = "(?P<name>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")(?![^\W\d_])\.?"
_DAYS = (
    "mon tue wed thu fri sat sun|montag dienstag mittwoch donnerstag freitag samstag sonnabend"
    " sonntag mo di mi do fr sa so|lundi mardi mercredi jeudi vendredi samedi dimanche"
    "|lunes martes miércoles jueves viernes sábado domingo"
)
_TIME = r"""(?:[\sT,]+ (?P<hour>\d{1,2}) (?::(?P<minute>\d\d) (?::(?P<second>\d\d)
    (?:[.,](?P<fraction>\d{1,9}))?)?)? \s*(?P<half>[ap]\.?m\.?)?
    \s*(?P<zone>z|utc|gmt|[+-]\d\d:?(?:\d\d)?)? )?"""
_WEEKDAY = rf"(?:(?:{'|'.join(_DAYS.replace('|', ' ').split())})[a-z]*\.?,?\s+)?"
_DATES = tuple(
    re.compile(_WEEKDAY + date + _TIME, re.VERBOSE | re.IGNORECASE)
    for date in (
        r"(?P<year>\d{4})\s*(?P<sign>[-/.年])\s*(?P<month>\d{1,2})"
        r"(?:\s*[-/.月]\s*(?P<day>\d{1,2})日?|月)?",
        r"(?P<a>\d{1,2})(?P<sign>[-/.])(?P<b>\d{1,2})(?P=sign)(?P<c>\d{4}|\d{2})\.?",
        r"(?P<day>\d{1,2})(?:st|nd|rd|th|er|º)?[\s./-]*(?:de\s+)?"
        + _MONTH
        + r"[\s,./-]*(?:del?\s+)?(?P<year>\d{4}|\d{2})",
        _MONTH + r"[\s./-]*(?P<day>\d{1,2})(?:st|nd|rd|th)?,?[\s./-]+(?P<year>\d{4})",
        _MONTH + r"[\s,./-]+(?:del?\s+)?(?P<year>\d{4})",
        r"(?P<month>\d{1,2})(?P<sign>[/-])(?P<year>\d{4})",
    )
)
_CLOCK = re.compile(
    r"(?P<minus>-)?\s*(?:(?P<days>\d+)\s*days?,?\s*\+?)?(?P<hours>\d{1,4}):(?P<minutes>[0-5]\d)"
    r"(?::(?P<seconds>[0-5]\d(?:[.,]\d+)?))?\s*(?P<half>[ap]\.?m\.?)?",
    re.IGNORECASE,
)
# A month with what may be its day or a year.
_NAME = _MONTH.replace("?P<name>", "?:")
_MONTH_AND_NUMBER = re.compile(rf"{_NAME}[ './-]*\d\d?|\d\d?[ './-]*{_NAME}", re.IGNORECASE)
_HOURS = re.compile(r"^(\d{1,2}) ?[hH] ?([0-5]\d)$")  # 12h05, in French
_COMPOUND = re.compile(
    r"(?P<minus>-)?(?:(?P<days>\d+) ?d(?:ays?)?[.,]? ?)?"
    r"(?:(?P<hours>\d+) ?h(?:rs?|ours?)?[.,]? ?)?(?:(?P<minutes>\d+) ?m(?:ins?|inutes?)?[.,]? ?)?"
    r"(?:(?P<seconds>\d+(?:[.,]\d+)?) ?s(?:ecs?|econds?)?\.?)?",
    re.IGNORECASE,
)
_LONGEST = 40
_QUARTER = re.compile(
    r"(?P<year>\d{4})[ /-]?Q(?P<quarter>[1-4])|Q(?P<q>[1-4])[ /-]?(?P<y>\d{4})", re.IGNORECASE
)
_DURATION = re.compile(
    r"(?P<minus>-)?P(?=.)(?:(?P<days>\d+)D)?(?:T(?=.)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?"
    r"(?:(?P<seconds>\d+(?:[.,]\d+)?)S)?)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class WrittenDate:
    """A date as it is written: either it is clear, or three numbers of which the order is open.

    Attributes:
        seconds: Since 1970, where it is clear.
        numbers: The three numbers, the year last.
        sign: What is between them.
        time: What is added to the day, in seconds.
        short: The year has two digits.
    """

    seconds: float = 0.0
    numbers: tuple[int, ...] = ()
    sign: str = ""
    time: float = 0.0
    short: bool = False

    def read(self, *, day_first: bool) -> float | None:
        """Return the seconds since 1970; None where there is no such day."""
        if not self.numbers:
            return self.seconds
        first, second, year = self.numbers
        day, month = (first, second) if day_first else (second, first)
        return _seconds(year, month, day, self.time)


def parse_date(text: str) -> WrittenDate | None:
    """Return a cleaned text as a date, or None where it is none. A time without a zone is UTC."""
    with contextlib.suppress(ValueError):
        found = datetime.fromisoformat(text)
        return WrittenDate(found.replace(tzinfo=found.tzinfo or UTC).timestamp())
    if (quarter := _QUARTER.fullmatch(text)) is not None:
        year = int(quarter["year"] or quarter["y"])
        first = 3 * int(quarter["quarter"] or quarter["q"]) - 2
        seconds = _seconds(year, first, 1, 0.0)
        return None if seconds is None else WrittenDate(seconds)
    for pattern in _DATES:
        match = pattern.fullmatch(text)
        if match is None:
            continue
        parts = match.groupdict()
        time = _time_of(parts)
        if time is None:
            return None
        if parts.get("a"):
            numbers = (int(parts["a"]), int(parts["b"]), _whole_year(parts["c"]))
            short = len(parts["c"]) == 2
            return WrittenDate(numbers=numbers, sign=parts["sign"], time=time, short=short)
        month = _MONTHS[parts["name"].lower()] if parts.get("name") else int(parts["month"])
        seconds = _seconds(_whole_year(parts["year"]), month, int(parts.get("day") or 1), time)
        return None if seconds is None else WrittenDate(seconds)
    return None


def lacks_year_or_day(text: str) -> bool:
    """Whether a cleaned text is a month and a number, such as Jan-21, of which nobody knows whether
    it is a day or a year."""
    return _MONTH_AND_NUMBER.fullmatch(text) is not None


def parse_compact(value: object) -> float | None:
    """Return the seconds since 1970 of eight digits such as 20240131, from 1900 to 2100; else
    None."""
    text = str(value).strip()
    if len(text) != 8 or not text.isdecimal() or not "1900" <= text[:4] <= "2100":
        return None
    return _seconds(int(text[:4]), int(text[4:6]), int(text[6:]), 0.0)


def parse_time(text: str) -> tuple[float, int] | None:
    """Return the seconds of a time of day or a duration: 9:30, 9:30 pm, 1:02:03.5, 2 days 3:00:00,
    PT5M, 5h 20m; and how many parts it has between colons. None for other texts."""
    text = _HOURS.sub(r"\1:\2", text)
    match = _CLOCK.fullmatch(text) or _DURATION.fullmatch(text)
    if match is None and len(text) < _LONGEST:
        match = _COMPOUND.fullmatch(text)
    if match is None or not any(match.groupdict().values()):
        return None
    parts = match.groupdict()
    hours = int(parts["hours"] or 0)
    half = (parts.get("half") or "").lower()
    if half:
        if not 1 <= hours <= 12:
            return None
        hours = hours % 12 + 12 * half.startswith("p")
    minutes = hours * 60 + int(parts["minutes"] or 0)
    seconds = float((parts["seconds"] or "0").replace(",", "."))
    days = int(parts["days"] or 0) * 86400
    found = minutes * 60 + seconds
    if parts["minus"]:
        # As Python and pandas write it, the minus is of the days alone: -1 day, 23:00 is an hour.
        found = found - days if days else -found
    else:
        found += days
    return found, text.count(":")


def _time_of(parts: dict[str, str | None]) -> float | None:
    """Return the seconds that a date's time adds to the day, in UTC; None where it is no time."""
    if parts["hour"] is None:
        return 0.0
    hour = int(parts["hour"])
    half = (parts["half"] or "").lower()
    if parts["minute"] is None and not half:
        return None
    if half:
        hour = hour % 12 + 12 * half.startswith("p") if 1 <= hour <= 12 else 99
    minute, second = int(parts["minute"] or 0), int(parts["second"] or 0)
    if hour > 23 or minute > 59 or second > 59:
        return None
    found = hour * 3600 + minute * 60 + second + float(f"0.{parts['fraction'] or 0}")
    zone = (parts["zone"] or "").replace(":", "")
    if zone[:1] in ("+", "-"):
        ahead = int(zone[1:3]) * 3600 + int(zone[3:] or 0) * 60
        found -= -ahead if zone[0] == "-" else ahead
    return found


def _whole_year(text: str | None) -> int:
    # As in POSIX: 69 to 99 are of the last century.
    year = int(text or 0)
    if len(text or "") > 2:
        return year
    return year + (1900 if year > 68 else 2000)


def _seconds(year: int, month: int, day: int, time: float) -> float | None:
    try:
        return datetime(year, month, day, tzinfo=UTC).timestamp() + time
    except ValueError:
        return None
