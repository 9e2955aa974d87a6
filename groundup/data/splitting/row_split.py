"""Examples read from rows and put on the sides of a split, for data sources of texts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from groundup.core.errors import DataError
from groundup.core.values import Example, Split
from groundup.data.reading.location import Origin
from groundup.data.splitting.held_out import (
    HELD_OUT_FIRST,
    SplitRule,
    draw_missing,
    leave_out_repeated,
    refuse_empty,
)

__all__ = ["SplitExamples", "read_splits", "stream_split"]

SplitExamples = dict[Split, list[Example]]
Item = TypeVar("Item")
_log = logging.getLogger("groundup")


def read_splits(
    origin: Origin,
    read: Callable[[Split], Iterable[Example]],
    keys: Callable[[Example], Iterable[str]],
    rule: SplitRule,
) -> SplitExamples:
    """Return the examples of every split there is; those that share a key are on one side.

    Where held-out rows are named, training rows that share a key with one of them are left out.

    Args:
        origin: Where the rows come from.
        read: Reads the rows named for a split.
        keys: What an example shares with others, one key at least.
        rule: How rows are held out where none are named.

    Raises:
        DataError: If a split is empty.
    """
    found: SplitExamples = {"train": list(read("train"))}
    for split in origin.held_out:
        try:
            found[split] = list(read(split))
        except DataError as error:
            # competitions publish test rows without labels; who names them wants to hear of it
            if split != "test" or origin.source.names_test:
                raise
            _log.warning("%s: the test rows are left out: %s", origin.name, error)
    named = tuple(found)
    leave_out_repeated(found, keys)
    sides = draw_missing(found, named, keys, lambda example: None, rule)
    for split, examples in sides.items():
        if not examples and (split != "test" or rule.test):
            raise refuse_empty(split, origin.name, rule, origin.held_out)
    return {split: examples for split, examples in sides.items() if examples}


def stream_split(
    split: Split,
    origin: Origin,
    read: Callable[[Split], Iterator[tuple[Item, str]]],
    rule: SplitRule,
    repeated: Callable[[Split], Any] = lambda other: None,
) -> Iterator[tuple[Item, str]]:
    """Yield one split of (example, group) pairs without holding them in memory.

    Args:
        split: The split.
        origin: Where the rows come from.
        read: Reads the rows named for a split.
        rule: How rows are held out where none are named.
        repeated: Called for each example that is left out because its group is in that split.
    """
    drawn = split not in ("train", *origin.held_out)
    own: Split = "train" if drawn else split
    # groups of held-out rows alone: training rows may be far more than fit into memory
    owner: dict[str, Split] = {}
    for other in HELD_OUT_FIRST[: HELD_OUT_FIRST.index(own)]:
        if other in origin.held_out:
            owner |= {group: other for _, group in read(other) if group not in owner}
    shares = rule.without(origin.held_out)
    for item, group in read(own):
        if group in owner:
            repeated(owner[group])
        elif own != "train" or shares.side_of(group) == split:
            yield item, group
