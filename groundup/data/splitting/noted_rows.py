"""Rows of splits, with a count of what was met on the way to them, for sources of chats."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from groundup.core.errors import DataError
from groundup.core.values import Split
from groundup.data.reading.location import Origin
from groundup.data.schemas.missing import name_missing
from groundup.data.splitting.drawing import SplitRule
from groundup.data.splitting.row_split import Item, stream_split

__all__ = ["describe_rows", "offer_skipping", "stream_noted"]

_log = logging.getLogger("groundup")


def stream_noted(
    split: Split,
    origin: Origin,
    read: Callable[[Split, Origin, Counter[str]], Iterator[tuple[Item, str]]],
    rule: SplitRule,
    notes: Counter[str],
) -> Iterator[tuple[Item, str]]:
    """Yield one split of (example, group) pairs; arguments as of ``stream_split``.

    Args:
        split: The split.
        origin: Where the rows come from.
        read: Reads the rows named for a split, and counts what it meets: ``invalid`` rows, ``format
            NAME``, ``column NAME`` that is not used, ``name OLD → NEW`` of a column, and what
            ``without_missing`` notes.
        rule: How rows are held out where none are named.
        notes: Counts what was met, and the rows whose group is in another split.
    """

    def read_named(named: Split) -> Iterator[tuple[Item, str]]:
        # what the rows of another split hold is not counted for this one
        own = split != "train" or named == split
        return read(named, origin, notes if own else Counter())

    def note(owner: Split) -> None:
        notes[f"question_in_{owner}"] += 1

    return stream_split(split, origin, read_named, rule, note)


def describe_rows(
    origin: Origin,
    count: Callable[[Split, Counter[str]], dict[str, Any]],
    reasons: Sequence[str],
) -> dict[str, Any]:
    """Return a data card: of each split what ``count`` says, formats, and what was left out.

    Args:
        origin: Where the rows come from.
        count: Describes a split, whose rows ``stream_noted`` gives with these notes.
        reasons: For which ``read`` leaves rows out.
    """
    notes: Counter[str] = Counter()
    counts: dict[str, Any] = {}
    for split in origin.splits:
        # rows that are left out, and formats, are counted once: on the way to the training rows
        counts[split] = count(split, notes if split == "train" else Counter())
    left_out = [*reasons, "question_in_validation"]
    if "test" in origin.held_out:
        left_out.append("question_in_test")
    card = origin.about()
    name_missing(card, notes)
    for names, number in _counted(notes, "name ").items():
        words = f"columns are read by their usual names: {names} ({number:,} rows)"
        card["warnings"] = [*card.get("warnings", ()), words]
    return {
        **card,
        **counts,
        "left_out": {reason: notes[reason] for reason in left_out},
        "formats": _counted(notes, "format "),
        "unused_columns": _name_unused(origin.name, notes),
    }


def offer_skipping(error: DataError) -> DataError:
    """Return the error of a row with one more way out."""
    if "invalid_rows" in error.remedy:
        return error
    remedy = f"{error.remedy}; or set data.invalid_rows: skip to leave such rows out"
    return DataError(error.where, error.problem, remedy)


def _counted(notes: Counter[str], prefix: str) -> dict[str, int]:
    """Return the counts whose names begin with a prefix, under what follows it."""
    return {
        key.removeprefix(prefix): n for key, n in sorted(notes.items()) if key.startswith(prefix)
    }


def _name_unused(where: str, notes: Counter[str]) -> dict[str, int]:
    """Return how many rows have something in each column that is not read, and say so."""
    found = _counted(notes, "column ")
    if found:
        columns = ", ".join(f"{name} ({number} rows)" for name, number in found.items())
        _log.warning("%s: columns that are not used: %s", where, columns)
    return found
