"""Numbers as people and spreadsheets write them: with separators, signs, brackets, units.

Whether a comma is a decimal sign is for the whole column to say: see ``column_format``.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

__all__ = ["CURRENCIES", "MEASURES", "TIME_UNITS", "Separators", "Written", "clean", "parse_number"]

Separators = Literal["plain", "decimal ,", "decimal .", "thousands ,", "thousands .", ", ?", ". ?"]
"""What a number says of the separators: nothing, what each is, or that a single one stands before
three digits, where it may be either."""

# Letters and signs that people write in more than one way. NFKC makes full-width forms and kinds of
# spaces plain; what it leaves is here, with marks that show nothing.
_PLAIN = str.maketrans(
    {"\u2212": "-", "\u2013": "-", "\u2012": "-", "\u2019": "'", "\u02bc": "'"}
    | dict.fromkeys("\u200b\u200e\u200f\ufeff\u2060\u061c")
)
_SCALES = {"k": 1e3, "K": 1e3, "M": 1e6, "mn": 1e6, "bn": 1e9, "千": 1e3, "万": 1e4, "亿": 1e8}
_SCALES |= {"million": 1e6, "mio": 1e6, "billion": 1e9, "mrd": 1e9, "lakh": 1e5, "crore": 1e7}
# 45% is 0.45, exactly as that is read.
_POWERS = {"%": -2, "‰": -3}
_CURRENCIES = (
    "$ € £ ¥ ₹ ₽ ₩ ₺ ฿ 元 円 원 US$ A$ C$ CA$ AU$ HK$ NT$ NZ$ S$ R$ CN¥ JP¥ USD EUR GBP CNY"
    " RMB JPY CHF INR KRW CAD AUD Rs Rs. kr zł Kč Ft"
)
CURRENCIES = frozenset(_CURRENCIES.split())
_TIMES = "d day days h hr hrs hour hours m min mins minutes s sec secs"
TIME_UNITS = frozenset(_TIMES.split())
# Units of which a column may have two, such as kg and g; other letters behind numbers are names.
_MEASURES = (
    "kg g mg lb lbs oz t km cm mm mi ft in yd °C °F l L ml cl B kB KB MB GB TB kb mb gb Hz kHz MHz"
    " GHz W kW MW kWh V A mph week weeks month months year years yr yrs mo"
)
MEASURES = TIME_UNITS | frozenset(_MEASURES.split())
_SIGN = "|".join(sorted(map(re.escape, CURRENCIES), key=len, reverse=True))
_NUMBER = re.compile(
    rf"""(?:(?:~|≈|(?:ca|approx|about|circa)\.?\s)\s?)? (?P<open>\()?\s* (?P<sign>[+-])?\s*
    (?P<before>{_SIGN}|\#)?\s* (?P<inner>[+-])?\s*
    (?P<body>\d(?:[\d.,' ]*\d)?\.?|[.,]\d+) (?P<exponent>[eE][+-]?\d+)?
    \s*(?:(?P<scale>k|K|M|B|mn|bn|(?i:million|billion|mio|mrd|lakh|crore))\.?(?![^\W\d_])
    |(?P<myriad>千|万|亿))?\s*
    (?P<unit>(?:[^\W\d_]|[%‰°"$€£¥₹₽₩₺฿])[^\s()\d]{{0,8}}\d?)?\s* (?P<after>-)?\s*
    (?P<close>\))?\s* (?P<outer>[%‰]|{_SIGN})?""",
    re.VERBOSE,
)
_QUOTED = re.compile(r"\s*(?:=?\"([^\"]*\d[^\"]*)\"|'([^']*\d[^']*))\s*")
# 1,234,567; and 12,34,567 as in India
_GROUPS = {
    sign: re.compile(rf"\d{{1,3}}(?:[{sign}]\d{{3}})+|\d{{1,2}}(?:[{sign}]\d\d)+[{sign}]\d{{3}}")
    for sign in ",. '"
}


@dataclass(frozen=True, slots=True)
class Written:
    """A number as it is written.

    Attributes:
        negative: A minus before or behind it, or brackets around it.
        body: Its digits with separators.
        exponent: Such as ``e5``, or nothing.
        factor: What a ``k`` or ``M`` behind it multiplies it by.
        unit: A currency or ``%`` or ``kg``; nothing where there is none.
    """

    negative: bool
    body: str
    exponent: str
    factor: float
    unit: str

    @property
    def separators(self) -> Separators | None:
        """What its separators say; None where no number is written like this."""
        body = self.body
        for group in " '":
            if group in body:
                head, sign, digits = _cut_decimals(body)
                if not _GROUPS[group].fullmatch(head) or not (digits or "0").isdigit():
                    return None
                return _decimal(sign) if sign else "plain"
        signs = [character for character in body if character in ",."]
        if not signs:
            return "plain"
        last = signs[-1]
        if len(set(signs)) == 2:
            head = body.rpartition(last)[0]
            grouped = last not in head and _GROUPS[signs[0]].fullmatch(head)
            return _decimal(last) if grouped else None
        if len(signs) > 1:
            return _thousands(last) if _GROUPS[last].fullmatch(body) else None
        if _GROUPS[last].fullmatch(body) and not body.startswith("0") and not self.exponent:
            return ", ?" if last == "," else ". ?"
        return _decimal(last)

    def value(self, decimal: str) -> float | None:
        """Return the number, where ``decimal`` is the decimal sign, or None where it is not written
        so."""
        other = {",": ".", ".": ","}[decimal]
        head, _, digits = self.body.partition(decimal)
        groups = {character for character in head if not character.isdigit()}
        if len(groups) > 1 or not groups <= {other, " ", "'"} or not (digits or "0").isdigit():
            return None
        if groups and (head.startswith("0") or not _GROUPS[groups.pop()].fullmatch(head)):
            return None
        plain = "".join(filter(str.isdigit, head)) or "0"
        power = int(self.exponent[1:] or 0) + _POWERS.get(self.unit, 0)
        found = float(f"{plain}.{digits or 0}e{power}") * self.factor
        return -found if self.negative and found else found


def clean(text: str) -> str:
    """Return a text with plain single spaces, signs and digits, and no space at its ends."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_PLAIN)
    # As spreadsheets and exports mark texts: '42, ="42", "42".
    if (quoted := _QUOTED.fullmatch(text)) is not None:
        text = quoted[1] or quoted[2]
    # Single: patterns with several places for a space would try all ways to divide many.
    return " ".join(text.split())


def parse_number(text: str) -> Written | None:
    """Return a cleaned text as a number, or None where it is none."""
    if text[:2].lower() == "0x":
        try:
            return Written(False, str(int(text, 16)), "", 1.0, "") if len(text) <= 18 else None
        except ValueError:
            return None
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    parts = {name: value or "" for name, value in found.groupdict().items()}
    signs = [parts["sign"], parts["inner"], parts["after"], parts["open"]]
    if bool(parts["open"]) != bool(parts["close"]) or sum(map(bool, signs)) > 1:
        return None
    scale = parts["scale"] or parts["myriad"]
    unit = parts["unit"]
    if len(unit) > 2 and unit.endswith("s") and unit[:-1] in MEASURES:
        unit = unit[:-1]  # 1 year, 2 years
    units = {sign for sign in (parts["before"], unit, parts["outer"]) if sign}
    if unit == "m" and units & CURRENCIES:  # £1.2m
        units.remove("m")
        scale = "M"
    if len(units) > 1:
        return None
    unit = units.pop() if units else ""
    factor = _SCALES.get(scale, _SCALES.get(scale.lower(), 1.0))
    if scale == "B":
        # A billion of a currency; of anything else it may be bytes, or a name.
        unit, factor = (unit, 1e9) if unit in CURRENCIES else ("B", 1.0)
    negative = any(sign in ("-", "(") for sign in signs)
    return Written(negative, parts["body"], parts["exponent"], factor, unit)


def _cut_decimals(body: str) -> tuple[str, str, str]:
    """Return what is before the last comma or dot, that sign, and what is behind it."""
    for place in range(len(body) - 1, -1, -1):
        if body[place] in ",.":
            return body[:place], body[place], body[place + 1 :]
    return body, "", ""


def _decimal(sign: str) -> Separators:
    return "decimal ," if sign == "," else "decimal ."


def _thousands(sign: str) -> Separators:
    return "thousands ," if sign == "," else "thousands ."
