"""Columns of a table: what kind of values they hold, and what each value means. A row is a view of
the columns."""

from __future__ import annotations

import contextlib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

import numpy as np

__all__ = [
    "TELLS",
    "Kind",
    "Row",
    "as_boolean",
    "as_category",
    "as_date",
    "as_number",
    "is_missing",
]

TELLS = "alone tells"
"""Words of every warning that a column gives the target away, by which reports know it."""

Kind = Literal["numeric", "categorical", "boolean", "date", "time"]
_NOTHING = (
    "|na|n/a|n.a|n.a.|#n/a|#na|<na>|nan|-nan|-nan(ind)|nat|null|(null)|none|(none)|nil|\\n|(blank)"
    "|missing|unknown|tbd|not available|not applicable|undefined|0000-00-00|?|??|*|.|..|...|-|--"
    "|---|\u2013|\u2014|#value!|#ref!|#div/0!|#num!|#null!|#name?|无|缺失|暂无|未知|不详"
)
_MISSING = frozenset(_NOTHING.split("|"))
_TRUTH = dict.fromkeys(("true", "t", "yes", "y", "on", "1", "1.0"), 1.0)
_TRUTH |= dict.fromkeys(("false", "f", "no", "n", "off", "0", "0.0"), 0.0)
_WHOLE = re.compile(r"-?\d+\.0+")
# Marks that show nothing, such as the byte-order mark.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200e\u200f\ufeff\u2060"))
# The first second of the year 10000.
_LATEST = 253_402_300_800.0


@dataclass(frozen=True, slots=True)
class Row(Mapping[str, Any]):
    """One row of a table kept as columns, read like a dictionary of column -> raw value.

    Attributes:
        columns: The values of every column, shared by all rows.
        number: Which of them are this row's.
        origin: Where it was read (file, row), for messages.
        separator: What was between its cells: next to semicolons a comma is often a decimal sign.
        target: The one column that is predicted, for messages.
    """

    columns: Mapping[str, Sequence[Any]]
    number: int
    origin: str = ""
    separator: str = ","
    target: str = ""

    def __getitem__(self, column: str) -> Any:
        return self.columns[column][self.number]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: null, not a number, infinite, or such words as ``NA`` and
    ``null``.

    In a categorical column the words are values like any other; see ``as_category``.
    """
    if isinstance(value, str):
        return value.strip().lower() in _MISSING
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def as_number(value: Any) -> float | None:
    """Return the number that a value or text means, NaN where it is missing or infinite, None where
    it means none."""
    # Python reads 1_000 as a number; in data it is a name.
    if isinstance(value, str) and "_" in value:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan if is_missing(value) else None
    return found if math.isfinite(found) else math.nan


def as_boolean(value: Any) -> float | None:
    """Return 1 for true or yes, 0 for false or no, NaN where it is missing, None for anything
    else."""
    if is_missing(value):
        return math.nan
    if isinstance(value, str):
        return _TRUTH.get(value.strip().lower())
    return float(value) if value == 0 or value == 1 else None


def as_date(value: Any) -> float | None:
    """Return the seconds since 1970 of a date, an ISO 8601 text or such seconds; NaN where missing,
    None for others.

    A time without a zone is taken as UTC. Numbers beyond the year 9999, such as milliseconds, are
    no dates.
    """
    if isinstance(value, np.datetime64):
        return (
            math.nan if np.isnat(value) else float(value.astype("datetime64[us]").astype(int)) / 1e6
        )
    if isinstance(value, str) and not is_missing(value):
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value.strip())
    if isinstance(value, datetime):
        # Otherwise Python would take it as local time, and a run would depend on the machine.
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    # Milliseconds since 1970 would be dates of the year 50000.
    found = as_number(value)
    return None if found is not None and abs(found) >= _LATEST else found


def as_category(value: Any) -> str:
    """Return the one spelling of a category or a label; empty where the value is missing.

    3, 3.0, "3" and "3.0" are one, so are true, "True" and "TRUE", and a text whatever its Unicode
    form and the white space at its ends and between its words. Bytes are text in UTF-8. Upper and
    lower case otherwise differ.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    # A column with gaps is read as floating-point numbers, and its 3 as 3.0.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).translate(_INVISIBLE)
    text = " ".join(text.split())
    if text.endswith("0") and _WHOLE.fullmatch(text):
        return text.partition(".")[0]
    return text.lower() if text.lower() in ("true", "false") else text
