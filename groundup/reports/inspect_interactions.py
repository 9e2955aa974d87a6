"""What ``groundup data inspect`` shows of interactions: how many there are in each split, how they
are spread, and some users with what they did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from groundup.contracts.data import DataSource
from groundup.contracts.recommendation import Catalogue
from groundup.core.values import Example, Split
from groundup.reports.data_notes import data_notes
from groundup.reports.inspect_texts import PERCENTILES, card_rows
from groundup.reports.tables import Grid

__all__ = ["inspect_interactions"]

_ITEMS = 8  # of a history that are shown


def inspect_interactions(
    source: DataSource, processor: Any, cache: Path, *, examples: int = 5
) -> list[RenderableType]:
    """Return counts, lengths of histories, the most chosen items, the data card and some users.

    Args:
        source: The recipe's data.
        processor: The run's.
        cache: Where the source keeps prepared files.
        examples: How many users of each split are shown.
    """
    splits: dict[Split, list[Example]] = {
        split: list(source.examples(split, cache)) for split in source.splits()
    }
    counts = [
        ("examples", *(f"{len(own):,}" for own in splits.values())),
        ("interactions", *(f"{_count(own):,}" for own in splits.values())),
        ("users", *(f"{len({e.inputs.user for e in own}):,}" for own in splits.values())),
    ]
    # Which of them are shown is the source's order: nothing is drawn.
    columns = ("split", "", *(f"{percent}%" for percent in PERCENTILES))
    card = source.card(cache)
    shown: list[RenderableType] = [
        Grid.of("Data", ("", *splits), counts, numbers=1),
        Grid.of("Lengths", columns, list(_lengths(splits)), numbers=2),
        Grid.of("Chosen most", ("item", "interactions"), list(_most(processor)), numbers=1),
        Grid.of("Data card", ("what", "value"), list(card_rows(card))),
    ]
    notes = (*processor.notes, *data_notes(card))
    shown += [Text(f"Note: {note}", style="yellow") for note in notes]
    for split, own in splits.items():
        shown += [Text(line) for line in _users(split, own[:examples])]
    return shown


def _count(examples: Sequence[Example]) -> int:
    return sum(len(example.target.items) for example in examples)


def _lengths(splits: dict[Split, list[Example]]) -> Iterator[tuple[str, ...]]:
    for split, own in splits.items():
        sides = {
            "items known before": [len(e.inputs.items) for e in own],
            "items to be predicted": [len(e.target.items) for e in own],
        }
        for name, values in sides.items():
            found = np.percentile(values, PERCENTILES)
            yield (split, name, *(f"{value:,.0f}" for value in found))


def _most(processor: Any) -> Iterator[tuple[str, str]]:
    order = np.argsort(-processor.popularity, kind="stable")[:_ITEMS]
    for number in order.tolist():
        if number:
            yield processor.title(number), f"{int(processor.popularity[number]):,}"


def _users(split: Split, examples: Sequence[Example]) -> Iterator[str]:
    for example in examples:
        history, chosen = example.inputs, example.target
        known = history.catalogue
        before = ", ".join(_title(known, item) for item in history.items[-_ITEMS:])
        after = ", ".join(_title(known, item) for item in chosen.items[:_ITEMS])
        more = len(chosen.items) - _ITEMS
        if more > 0:
            after += f" and {more:,} more"
        yield f"{split}, user {history.user}: {before or '(nothing)'} -> {after}"


def _title(known: Catalogue | None, item: str) -> str:
    return item if known is None else known.titles.get(item, item)
