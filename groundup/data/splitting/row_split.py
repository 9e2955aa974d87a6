"""Examples read from rows and put on the two sides of a split, for data sources of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from groundup.core.values import Example, Split
from groundup.data.reading.location import Origin
from groundup.data.splitting.held_out import Drawing, draw, refuse_empty

__all__ = ["Sides", "problem_with_rows", "split_examples"]

Sides = dict[Split, list[Example]]


def problem_with_rows(origin: Origin, columns: Sequence[str], drawn: Sequence[str]) -> str | None:
    """Return what contradicts itself in a source of rows, as ``"problem. remedy"``, or None.

    Args:
        origin: Where the rows come from.
        columns: The columns that are read, each of which must be another.
        drawn: Those settings given that say how held-out rows are drawn.
    """
    twice = next((name for n, name in enumerate(columns) if name in columns[:n]), None)
    if twice is not None:
        return f"the column {twice!r} is named twice. Name another"
    if origin.has_validation and drawn:
        named = "validation_path" if origin.validation_path is not None else "validation_split"
        return f"{drawn[0]} has no effect with {named}. Remove one of them"
    return None


def split_examples(
    origin: Origin,
    read: Callable[[Split], Iterable[Example]],
    keys: Callable[[Example], Iterable[str]],
    fraction: float,
    seed: int,
) -> Sides:
    """Return the examples of both sides; those that share a key are on one side.

    Where held-out rows are named, training rows that share a key with one of them are left out.

    Args:
        origin: Where the rows come from.
        read: Reads the rows named for a side.
        keys: What an example shares with others, one key at least.
        fraction: Share that is held out.
        seed: Another seed holds out others.

    Raises:
        DataError: If a side is empty.
    """
    found: Sides = {"train": list(read("train")), "validation": []}
    how = None if origin.has_validation else Drawing(fraction, seed)
    if how is None:
        found["validation"] = list(read("validation"))
        held_out = {key for example in found["validation"] for key in keys(example)}
        found["train"] = [
            example for example in found["train"] if held_out.isdisjoint(keys(example))
        ]
    else:
        every = found["train"]
        sides = draw([tuple(keys(example)) for example in every], [None] * len(every), how)
        found = {side: _chosen(every, sides, side) for side in ("train", "validation")}
    for side, examples in found.items():
        if not examples:
            raise refuse_empty(side, origin.name, how)
    return found


def _chosen(examples: Sequence[Example], sides: Sequence[Split], side: Split) -> list[Example]:
    return [example for example, own in zip(examples, sides, strict=True) if own == side]
