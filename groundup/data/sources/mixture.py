"""Several sources of text or conversations in one run, each with its share of the rows."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import field_serializer, field_validator, model_validator

from groundup.contracts.data import DataContext, DataSource, Stream, Unlabelled
from groundup.core import registry, seeding
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import setting, validate
from groundup.core.values import Batch, Conversation, Document, Split, Table
from groundup.data.stream.sample_stream import Layout, MicroBatches, SampleStream

__all__ = ["Mixture", "Schedule"]

_COLUMNS = ("part", "format", "training tokens", "share of the rows", "seen in an epoch")

# keeps the cycle's table small; shares are then right to 0.01 %
_LONGEST_CYCLE = 10_000  # rows; shares that need a longer one are rounded to it
_log = logging.getLogger("groundup")
Integers = NDArray[np.int64]


@registry.data("mixture")
class Mixture(DataSource):
    """Several sources side by side. Each part has the settings of its source, and its share of the
    training rows.

    After any number of rows, each part has had its share of them to within one row for each other
    part: which part row n is of follows from n alone, and which of the part's rows from the seed. A
        part that is smaller than its share is
    repeated, in another order each time. An epoch is as many rows as it takes to see every part at
    least once. Validation reads each part's held-out rows once. Parts are split each by itself: a
    document that is in two of them can be held out in one and trained on in the other, which
    ``groundup data inspect`` counts.
    """

    parts: dict[str, Any] = setting(
        ..., "The sources by a name of your own, each with a source's settings", min_length=1
    )
    weights: dict[str, float] = setting(
        {},
        "Each part's share of the rows, relative to the others'; without any, parts have their"
        " sizes' shares",
    )

    # ------------------------------------------------------------------------------------- settings
    @field_validator("parts", mode="before")
    @classmethod
    def _build_parts(cls, sections: Any) -> Any:
        if not isinstance(sections, dict):
            return sections
        return {
            name: section if isinstance(section, DataSource) else _build_source(name, section)
            for name, section in sections.items()
        }

    @field_serializer("parts")
    def _dump_parts(self, parts: dict[str, DataSource]) -> dict[str, Any]:
        return {
            name: {"name": type(part).registered_name, **part.model_dump(mode="json")}
            for name, part in parts.items()
        }

    @model_validator(mode="after")
    def _weights_fit(self) -> Mixture:
        # a part without a weight would be a part without data, silently
        if self.weights and set(self.weights) != set(self.parts):
            odd = sorted(set(self.weights) ^ set(self.parts))[0]
            side = "no part" if odd in self.weights else "a part without a weight"
            raise ValueError(
                f"weights: {odd!r} is {side}; parts: {', '.join(self.parts)}. Give each part one"
            )
        for name, weight in self.weights.items():
            # zero is refused: a part that is never read is better removed, where one sees it
            if not 0 < weight < math.inf:
                raise ValueError(
                    f"weights gives part {name!r} {weight}; allowed: more than 0. Remove the part"
                    " instead"
                )
        return self

    # ----------------------------------------------------------------------------------------- data
    def splits(self) -> tuple[Split, ...]:
        """Return the splits that some part has."""
        found = {split for part in self.parts.values() for split in part.splits()}
        return ("train", *(split for split in ("validation", "test") if split in found))

    def examples(self, split: Split, cache: Path) -> Iterator[Conversation | Document]:
        """Yield the examples of all parts, one part after the other; names begin with the
        part's."""
        for name, part in self._parts_with(split).items():
            for example in part.examples(split, cache):
                yield dataclasses.replace(example, name=f"{name}/{example.name}")

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        return {
            f"{name}/{each}": content
            for name, part in self.parts.items()
            for each, content in part.contents().items()
        }

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield what the first part reads; see ``DataSource.unlabelled``."""
        part: DataSource = next(iter(self.parts.values()))
        return part.unlabelled(path)

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of all parts together; see ``DataSource.open``.

        Raises:
            DataError: If a part cannot be read, or has nothing to train on; the message names the
                part.
        """
        layout = Layout.of(context)
        opened = {
            name: _open_part(name, part, context, n)
            for n, (name, part) in enumerate(self._parts_with(context.split).items())
        }
        sizes = [part.samples_per_epoch(0) for part in opened.values()]
        if context.split == "train":
            weights: list[float] | list[int] = sizes
            if self.weights:
                weights = [self.weights[name] for name in opened]
            schedule = Schedule(weights)
            epoch = max(
                -(-size * schedule.cycle // count)
                for size, count in zip(sizes, schedule.counts, strict=True)
            )
            said = "%s: %.1f %% of the rows; its %d rows are seen %.2f times an epoch"
            for name, size, count in zip(opened, sizes, schedule.counts, strict=True):
                share = count / schedule.cycle
                _log.info(said, name, 100 * share, size, epoch * share / size)
        else:
            schedule = None
            epoch = sum(sizes)
        return SampleStream(
            _Mixed(list(opened.values()), sizes, schedule, epoch, layout), layout, context.workers
        )

    def card(self, cache: Path) -> dict[str, Any]:
        """Return each part's card, and its weight."""
        cards = {name: part.card(cache) for name, part in self.parts.items()}
        for name, weight in self.weights.items():
            cards[name] = {"weight": weight} | cards[name]
        return cards

    def part_of(self, example: Any) -> str:
        """Return the part's name, with which the names of its examples begin."""
        return str(example.name).split("/")[0]

    def tables(self, tokens: Mapping[str, int], card: Mapping[str, Any]) -> list[Table]:
        """Return a row for each part: what it is, and about how often it is seen, taking rows to
        be full."""
        weights = self.weights or {name: float(max(tokens.get(name, 0), 1)) for name in self.parts}
        total = sum(weights.values())
        epoch = max(tokens.get(name, 0) * total / weight for name, weight in weights.items())
        rows: list[tuple[str | float | int | None, ...]] = []
        for name, weight in weights.items():
            formats = card[name].get("formats", {})
            form = ", ".join(f"{key} ({count:,})" for key, count in formats.items()) or "text"
            own = tokens.get(name, 0)
            seen = f"{epoch * weight / total / own:.2f} times" if own else "never"
            rows.append((name, form, f"{own:,}", f"{weight / total:.1%}", seen))
        return [Table("Parts", _COLUMNS, rows)]

    def _parts_with(self, split: Split) -> dict[str, DataSource]:
        """Return the parts that have such a split: one with fraction 0 may hold nothing out."""
        return {
            name: part
            for name, part in self.parts.items()
            if split == "train" or split in part.splits()
        }


class Schedule:
    """Which part each row is of, and its number there: a cycle of rows in which each part is spread
    evenly.

    Attributes:
        cycle: The rows of a cycle.
        counts: How many of them are of each part.
    """

    def __init__(self, weights: list[float] | list[int]) -> None:
        self.counts = _whole_counts(weights)
        self.cycle = sum(self.counts)
        # Row j of a part that has c of a cycle is due at (j + 0.5) / c of it: sorted so, every
        # part is spread evenly, and none is ever more than a row behind another.
        places = np.concatenate([(np.arange(count) + 0.5) / count for count in self.counts])
        parts = np.repeat(np.arange(len(self.counts)), self.counts)
        order = np.lexsort((parts, places))
        self._parts: Integers = parts[order]
        self._ranks: Integers = np.concatenate([np.arange(count) for count in self.counts])[order]

    def place(self, sample: int) -> tuple[int, int]:
        """Return the part of a row, and the row's number among those of that part."""
        turn, place = divmod(sample, self.cycle)
        part = int(self._parts[place])
        return part, turn * self.counts[part] + int(self._ranks[place])


class _Mixed(MicroBatches):
    """Micro-batches of which each row comes from a part's micro-batch of one row."""

    def __init__(
        self,
        parts: list[MicroBatches],
        sizes: list[int],
        schedule: Schedule | None,
        epoch: int,
        layout: Layout,
    ) -> None:
        self.parts = parts
        self.schedule = schedule
        self.epoch = epoch
        self.layout = layout
        self.starts = np.cumsum([0, *sizes])

    def __getitem__(self, number: int) -> Batch:
        first = self.layout.first_sample(number)
        rows = [
            self.parts[part][row]
            for part, row in map(self._place_of, range(first, first + self.layout.micro_batch_size))
        ]
        whole = {
            name: torch.cat([row[name] for row in rows]) for name in rows[0] if name != "boundaries"
        }
        # Boundaries count from the start of the batch: those of each row are moved by the rows
        # before it, and the padding of all comes last.
        width = self.layout.sequence_length
        size = len(rows) * (max(len(row["boundaries"]) for row in rows) - 1) + 1
        begins = [
            row["boundaries"][row["boundaries"] < width] + n * width for n, row in enumerate(rows)
        ]
        boundaries = torch.full((size,), len(rows) * width, dtype=torch.int32)
        found = torch.cat(begins)
        boundaries[: len(found)] = found
        return whole | {"boundaries": boundaries}

    def samples_per_epoch(self, sample: int) -> int:
        """Return the rows it takes to see every part at least once."""
        return self.epoch

    def _place_of(self, sample: int) -> tuple[int, int]:
        if self.schedule is not None:
            return self.schedule.place(sample)
        part = min(int(np.searchsorted(self.starts, sample, side="right")) - 1, len(self.parts) - 1)
        return part, sample - int(
            self.starts[part]
        )  # beyond the end of the last part: an empty row


def _build_source(name: str, section: Any) -> DataSource:
    if isinstance(section, str):  # text is short for {name: text}
        section = {"name": section}
    if not isinstance(section, dict) or "name" not in section:
        raise ValueError(
            f"part {name!r} has no name of a source. Write for example name: conversations"
        )
    where = f"recipe.data.parts.{name}"
    cls = registry.lookup("data", str(section["name"]), f"{where}.name")
    if not cls.packs_rows:
        raise RecipeError(
            f"{where}.name",
            f"{section['name']!r} makes no rows of tokens; allowed: text, conversations,"
            " python_docs, ...",
            "Use sources of text or conversations",
        )
    settings = {key: value for key, value in section.items() if key != "name"}
    source: DataSource = validate(cls, settings, where)
    return source


def _open_part(name: str, part: DataSource, context: DataContext, number: int) -> MicroBatches:
    """Return a part's rows by their numbers, in an order of its own."""
    # by number, not name: renaming a part changes nothing
    seed = seeding.key(context.seed, "part", number)
    try:
        # rows one by one, from this process: which rows are wanted, the mixture says
        alone = dataclasses.replace(
            context, seed=seed, batch_size=1, micro_batch_size=1, rank=0, world=1, workers=0
        )
        stream = part.open(alone)
    except DataError as error:
        raise DataError(f"part {name!r}, {error.where}", error.problem, error.remedy) from None
    if not isinstance(stream, SampleStream):
        raise DataError(
            f"part {name!r}",
            f"a {type(stream).__name__} cannot be read row by row",
            "Open it with open_token_stream",
        )
    return stream.batches


def _whole_counts(weights: list[float] | list[int]) -> list[int]:
    """Return whole numbers in the ratio of the weights; rounded where only a very long cycle would
    be exact."""
    # as they are written: 0.1 is a tenth here, and no sum of powers of two
    exact = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(each.denominator for each in exact))
    whole = [int(each * scale) for each in exact]
    divisor = math.gcd(*whole)
    counts = [each // divisor for each in whole]
    # sizes are exact whatever they are: without weights, an epoch is each row once
    if sum(counts) <= _LONGEST_CYCLE or all(isinstance(weight, int) for weight in weights):
        return counts
    return [max(1, round(each * _LONGEST_CYCLE / sum(exact))) for each in exact]
