"""Examples read from rows and put on the sides of a split, for data sources of texts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

from groundup.core.errors import DataError
from groundup.core.values import Example, Split
from groundup.data.reading.location import Origin
from groundup.data.splitting.drawing import SplitRule
from groundup.data.splitting.held_out import (
    HELD_OUT_FIRST,
    draw_missing,
    leave_out_repeated,
    refuse_empty,
)

__all__ = ["Item", "SplitExamples", "read_splits", "stream_split"]


class _Placed(Protocol):
    @property
    def origin(self) -> str:
        """Where it was read."""


Item = TypeVar("Item", bound=_Placed)
_log = logging.getLogger("groundup")


class SplitExamples(dict[Split, list[Example]]):
    """The examples of each split that has any; to ask for another is an error that says why.

    Args:
        sides: The examples of each split.
        origin: Where they come from.
        rule: How those that are not named were drawn.
        groups: Returns what they were drawn by, where it is known.
    """

    def __init__(
        self,
        sides: dict[Split, list[Example]],
        origin: Origin,
        rule: SplitRule,
        groups: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        super().__init__({split: own for split, own in sides.items() if own})
        self._groups = groups
        self._origin = origin
        self._rule = rule

    def __missing__(self, split: Split) -> NoReturn:
        held_out = self._origin.held_out
        raise refuse_empty(split, self._origin.name, self._rule, held_out, self._groups())


def read_splits(
    origin: Origin,
    read: Callable[[Split], Iterable[Example]],
    keys: Callable[[Example], Iterable[str]],
    rule: SplitRule,
    documents: Callable[[Example], Iterable[str]] | None = None,
) -> SplitExamples:
    """Return the examples of every split there is; those that share a key are on one side.

    Where held-out rows are named, training rows that share a key with one of them are left out.

    Args:
        origin: Where the rows come from.
        read: Reads the rows named for a split.
        keys: What an example shares with others, one key at least.
        rule: How rows are held out where none are named.
        documents: What is held out as a whole, one name at least. What shares a key with a document
            that is held out is then left out of training: by their keys, such as a sentence that
            many repeat, all documents would belong together.

    Raises:
        DataError: If a split is empty.
    """
    found: dict[Split, list[Example]] = {"train": list(read("train"))}
    for split in origin.held_out:
        try:
            found[split] = list(read(split))
        except DataError as error:
            # competitions publish test rows without labels; who names them wants to hear of it
            if split != "test" or origin.source.names_test:
                raise
            _log.warning("%s: the test rows are left out: %s", origin.name, error)
    named = tuple(found)
    placement = origin.placement

    def together(example: Example) -> tuple[str, ...]:
        return (*keys(example), *placement.keys(example.origin))

    leave_out_repeated(found, together)
    sides = draw_missing(
        found,
        named,
        documents or together,
        lambda example: None,
        rule,
        lambda example: placement.time(example.origin),
    )
    if documents is not None:
        leave_out_repeated(sides, keys)

    def groups() -> set[str]:
        own = [together(example) for examples in sides.values() for example in examples]
        # by several keys, what belongs together is known only once it is joined
        single = documents is None and all(len(each) == 1 for each in own)
        return {each[0] for each in own} if single else set()

    splits = SplitExamples(sides, origin, rule, groups)
    # With fraction 0 there is no validation, as where a run is evaluated on a file of its own.
    for split in origin.splits:
        if split != "test" or rule.test:
            _ = splits[split]
    return splits


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
    if origin.placement.columns:
        yield from _split_by_columns(split, origin, read, rule, repeated)
        return
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


class _Place(NamedTuple):
    """A row of a split that has rows of its own, and what it shares with others."""

    split: Split
    number: int
    keys: tuple[str, ...]
    origin: str


def _split_by_columns(
    split: Split,
    origin: Origin,
    read: Callable[[Split], Iterator[tuple[Item, str]]],
    rule: SplitRule,
    repeated: Callable[[Split], Any],
) -> Iterator[tuple[Item, str]]:
    """Yield one split of rows whose groups or times are in columns: read once to draw all of them,
    and once more."""
    placement = origin.placement
    found: dict[Split, list[_Place]] = {}
    for each in ("train", *origin.held_out):
        found[each] = [
            _Place(each, number, (group, *placement.keys(item.origin)), item.origin)
            for number, (item, group) in enumerate(read(each))
        ]
    every = list(found["train"])

    def keys_of(place: _Place) -> tuple[str, ...]:
        return place.keys

    leave_out_repeated(found, keys_of)
    sides = draw_missing(
        found,
        origin.held_out,
        keys_of,
        lambda place: None,
        rule,
        lambda place: placement.time(place.origin),
    )
    if split == "train":
        kept = {place.number for own in sides.values() for place in own if place.split == "train"}
        tested = {key for place in sides["test"] for key in place.keys}
        for place in every:
            if place.number not in kept:
                repeated("validation" if tested.isdisjoint(place.keys) else "test")
    own = "train" if split not in ("train", *origin.held_out) else split
    wanted = {place.number for place in sides[split] if place.split == own}
    for number, row in enumerate(read(own)):
        if number in wanted:
            yield row
