"""What ``groundup data inspect`` shows of pairs of an input and the text to be made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from groundup.contracts.data import DataSource
from groundup.contracts.processors import TextProcessor
from groundup.contracts.ragged import offsets_of
from groundup.contracts.tasks import Task
from groundup.core.error_location import encode_located
from groundup.core.values import Split
from groundup.reports.data_notes import data_notes
from groundup.reports.inspect_texts import PERCENTILES, card_rows
from groundup.reports.sampling import LIMIT, Copies, Sample, read_in_batches
from groundup.reports.tables import Grid

__all__ = ["inspect_pairs"]

_TOGETHER = 256  # pairs that are encoded at a time
_SHOWN = 600  # characters of a text


@dataclass
class _Seen:
    """What was seen of a split; ``lengths`` of each side, in tokens, as a model reads it."""

    split: Split
    sample: Sample
    lengths: dict[str, list[int]] = field(default_factory=dict)


def inspect_pairs(
    source: DataSource,
    task: Task,
    processor: TextProcessor,
    cache: Path,
    *,
    examples: int = 5,
    limit: int = LIMIT,
) -> list[RenderableType]:
    """Return counts, lengths in tokens and how they compare, what is cut, the data card, and pairs.

    Args:
        source: The recipe's data.
        task: Encodes the pairs.
        processor: The tokenizer.
        cache: Where the source keeps prepared files.
        examples: How many pairs of each split to show.
        limit: How many pairs of each split to encode.
    """
    splits: list[_Seen] = []
    copies = Copies()
    for split in source.splits():
        seen = _Seen(split, Sample(limit))
        for batch in read_in_batches(source.examples(split, cache), _TOGETHER):
            seen.sample.add(batch)
            copies.add(split, [(pair.inputs, pair.target) for pair in batch])
        # What is wrong with one of them would stop the training.
        for batch in read_in_batches(seen.sample.rows, _TOGETHER):
            encoded = encode_located(lambda some: task.encode(some, processor), batch)
            assert isinstance(encoded, dict), "pairs are encoded as ragged tensors"
            for name in encoded:
                if offsets_of(name) in encoded:
                    lengths = encoded[offsets_of(name)].diff().tolist()
                    seen.lengths.setdefault(name, []).extend(lengths)
        splits.append(seen)
    # Copies are counted over all rows, lengths over the sample alone.
    repeated = {seen.split: copies.count(seen.split) for seen in splits}
    counts = [
        ("pairs", *(f"{seen.sample.total:,}" for seen in splits)),
        ("looked at", *(seen.sample.in_words for seen in splits)),
        ("exact copies of earlier ones", *(f"{repeated[seen.split][0]:,}" for seen in splits)),
    ]
    columns = ("tokens", "split", "mean", "least", *(f"{p}%" for p in PERCENTILES), "most")
    card = source.card(cache)
    cut = processor.cut.notes() if processor.cut is not None else []
    shown: list[RenderableType] = [
        Grid.of("Data", ("", *(seen.split for seen in splits)), counts, numbers=1),
        Grid.of("Lengths", columns, list(_list_lengths(splits)), numbers=2),
        Grid.of("Data card", ("what", "value"), list(card_rows(card))),
    ]
    shown += [Text(f"Note: {note}", style="yellow") for note in (*cut, *data_notes(card))]
    return shown + [line for seen in splits for line in _show_pairs(seen, examples)]


def _list_lengths(splits: Sequence[_Seen]) -> Iterator[tuple[str, ...]]:
    """Yield how long each side is, and the second one in parts of the first."""
    for name in splits[0].lengths:
        for seen in splits:
            yield _row(name, seen.split, seen.lengths[name], ",.0f")
    for seen in splits:
        first, *others = seen.lengths
        for other in others:
            pairs = zip(seen.lengths[first], seen.lengths[other], strict=True)
            # Neither side is empty: the source's filters have left such pairs out.
            ratios = [second / one for one, second in pairs]
            yield _row(f"{other} / {first}", seen.split, ratios, ".2f")


def _row(name: str, split: Split, values: Sequence[float], form: str) -> tuple[str, ...]:
    steps = [min(values), *np.percentile(values, PERCENTILES), max(values)]
    return (name, split, *(format(value, form) for value in (float(np.mean(values)), *steps)))


def _show_pairs(seen: _Seen, count: int) -> Iterator[RenderableType]:
    """Yield some pairs: where each was read, and both of its texts."""
    for pair in seen.sample.rows[:count]:
        yield Text(f"{seen.split}: {pair.origin or pair.name}", style="bold", overflow="fold")
        for mark, text in (("  ", pair.inputs), ("→ ", pair.target)):
            # An input may also be a picture's file, which is named.
            yield Text(f"{mark}{_shorten(str(text))}", overflow="fold")


def _shorten(text: str) -> str:
    left = len(text) - _SHOWN
    return text if left <= 0 else f"{text[:_SHOWN]} … {left:,} more characters"
