"""What is doubtful about the labels of examples: it is said, or refused where nothing can be held
out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from groundup.core.errors import DataError
from groundup.core.values import Example, Split
from groundup.data.schemas.missing import stands_for_nothing
from groundup.data.splitting.drawing import are_numbers

__all__ = ["doubtful_labels", "groups_to_draw"]

_SHOWN = 3  # labels that are named
_COMMON = 5  # examples of a label on average, from which on a single one is worth a word
# what spreadsheets write into a cell that cannot be computed
_CELL_ERROR = re.compile(r"#(REF|DIV/0|VALUE|NAME|NUM|NULL|SPILL)[!?]")


def doubtful_labels(examples: Iterable[Example]) -> list[str]:
    """Return what looks like a mistake in the labels that are texts: some that differ in case or
    white space alone, some that stand for nothing, and a few that only one example has."""
    origins: dict[str, list[str]] = {}
    for each in examples:
        if isinstance(each.target, str):
            origins.setdefault(each.target, []).append(each.origin)
    labels = sorted(origins)
    found = []
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(label.strip().casefold(), []).append(label)
    pairs = [" and ".join(map(repr, own)) for own in alike.values() if len(own) > 1]
    if pairs:
        shown = "; ".join(pairs[:_SHOWN])
        found.append(
            f"labels that differ in case or white space alone are classes of their own ({shown}):"
            " write them alike if they are one"
        )
    empty = [label for label in labels if stands_for_nothing(label) or _CELL_ERROR.match(label)]
    if empty:
        shown = ", ".join(map(repr, empty[:_SHOWN]))
        found.append(
            f"labels that look like missing values are classes too ({shown}): remove the rows if"
            " they stand for nothing"
        )
    # such as a second line of headings; where many are rare, it is no mistake
    lone = [label for label in labels if len(origins[label]) == 1]
    common = sum(map(len, origins.values())) >= _COMMON * len(labels)
    if common and 0 < len(lone) <= _SHOWN and not are_numbers(labels):
        shown = ", ".join(f"{label!r} at {origins[label][0]}" for label in lone)
        found.append(f"labels of a single example: {shown}; if it is no row, remove it")
    return found


def groups_to_draw(
    split: Split, examples: Sequence[Example], group_of: Callable[[Example], str], where: str
) -> set[str]:
    """Return the groups that may be drawn for a split: a label's only one stays in training.

    Args:
        split: The split, which is empty.
        examples: All of them.
        group_of: Says what must be on one side, such as a text.
        where: What to call the source.

    Raises:
        DataError: If every label has a single group.
    """
    groups: dict[str, set[str]] = {}
    for each in examples:
        groups.setdefault(str(each.target), set()).add(group_of(each))
    # numbers to predict are no classes, and lists of labels are drawn as any other
    classes = all(isinstance(each.target, str | int) for each in examples)
    if split == "train" or len(groups) < 2 or not classes or are_numbers(groups):
        return set().union(*groups.values())
    several = [own for own in groups.values() if len(own) > 1]
    if not several:
        raise DataError(
            where,
            f"nothing is left for {split}: each of the {len(groups):,} labels has a single text,"
            " which stays in training",
            "Check what the label is read from, or name held-out examples as data.validation, or"
            " train without any: data.fraction: 0",
        )
    return set().union(*several)
