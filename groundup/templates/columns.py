"""What the columns of a file hold, such as texts, classes and numbers; and which is the label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any, NamedTuple

from groundup.core.errors import DataError, did_you_mean
from groundup.media.find_format import look_at
from groundup.media.table_values import as_category, is_missing

__all__ = ["Column", "Label", "choose_label", "describe_columns"]

# Names that nothing else is called. Others, such as price or rating, may be the label or something
# to predict it from, which only the user knows.
_NAMES = ("label", "labels", "target", "class", "category", "y", "outcome", "sentiment")
_MANY_CLASSES = 50  # more different values than this are names, or numbers to be predicted
_FEW_NUMBERS = 20  # whole numbers with at most N values may be classes
_WORDS_OF_TEXT = 5  # on average: a name or a category has fewer


class Column(NamedTuple):
    """What a column holds, from some of its rows.

    Attributes:
        holds: ``text``; ``classes``: words or whole numbers that come again; ``numbers``;
            ``names``: values that hardly come again, as those of an id; or ``structure``: lists
            and objects.
        different: How many different values there are.
        shown: Some of them, for messages.
    """

    name: str
    holds: str
    different: int
    shown: str

    def __str__(self) -> str:
        return f"{self.name} ({self.holds}, {self.different} different: {self.shown})"


class Label(NamedTuple):
    """The column to predict, and why it is that one."""

    column: Column
    why: str

    @property
    def is_number(self) -> bool:
        """Whether a number is to be predicted, instead of a class."""
        return self.column.holds == "numbers"


def describe_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Return what each column holds, in the order of the first row."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _describe(name, [row.get(name) for row in rows]) for name in names}


def choose_label(columns: Mapping[str, Column], asked: str | None, where: str) -> Label:
    """Return the label: the column that was asked for, or the only one that can be it.

    Raises:
        DataError: If there is no such column, or several could be the label; the message lists
            them.
    """
    if asked is not None:
        if asked not in columns:
            hint = did_you_mean(asked, columns)
            raise DataError(
                where,
                f"there is no column {asked!r}; {hint}columns: {', '.join(columns)}",
                "Name one of them with --label",
            )
        return Label(columns[asked], f"--label {asked}")
    named = [column for name, column in columns.items() if name.lower() in _NAMES]
    if len(named) == 1:
        return Label(named[0], "no other column has such a name")
    classes = [column for column in columns.values() if column.holds == "classes"]
    if len(classes) == 1 and not named:
        return Label(classes[0], "no other column has values that are classes")
    idle = ("names", "structure")
    possible = named or [column for column in columns.values() if column.holds not in idle]
    listed = "; ".join(str(column) for column in possible)
    raise DataError(
        where, f"several columns could be the label: {listed}", "Say which with --label COLUMN"
    )


def _describe(name: str, values: Sequence[Any]) -> Column:
    present = [value for value in values if not is_missing(value)]
    if any(isinstance(value, list | dict) for value in present):
        return Column(name, "structure", 0, "lists or objects")
    counts = Counter(map(as_category, present))
    shown = ", ".join(shorten(text, 20, placeholder="…") for text in list(counts)[:3])
    return Column(name, _holds(present, counts), len(counts), shown or "nothing")


def _holds(present: Sequence[Any], counts: Mapping[str, int]) -> str:
    # Of classes each value is in many rows; of a name or an id hardly one is in two.
    come_again = len(counts) <= max(2, len(present) // 2)
    found = look_at("", counts)
    kind = found.kind
    if kind == "numeric":
        read = (found.format.read(value, "numeric") for value in counts)
        numbers = [number for number in read if number is not None]
        whole = all(number == round(number) for number in numbers if number == number)
        if whole and come_again and len(counts) <= _FEW_NUMBERS:
            return "classes"
        # Whole numbers of which each comes once and none is left out count the rows.
        if whole and len(counts) == len(present) == max(numbers) - min(numbers) + 1:
            return "names"
        return "numbers"
    if kind == "date":
        return "dates"
    if sum(_words(text) * count for text, count in counts.items()) >= _WORDS_OF_TEXT * len(present):
        return "text"
    if come_again and len(counts) <= _MANY_CLASSES:
        return "classes"
    return "names"


def _words(text: str) -> float:
    # Chinese and Japanese put no spaces between words, which have about two characters there.
    return len(text.split()) + sum(character > "\u2e7f" for character in text) / 2
