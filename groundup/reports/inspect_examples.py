"""Looking at labelled examples before training on them: classes, shapes, duplicates, and a sheet of
pictures.

Shape legend: C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text
from torch import Tensor

from groundup.contracts.data import DataSource
from groundup.contracts.processors import LabelProcessor, Targets
from groundup.contracts.tasks import Task
from groundup.core.error_location import encode_located
from groundup.core.values import Example, Split
from groundup.media.table_values import as_number
from groundup.reports.data_notes import data_notes
from groundup.reports.formatting import number
from groundup.reports.inspect_boxes import list_boxes, sides_of, warn_of_small_boxes
from groundup.reports.inspect_texts import PERCENTILES, card_rows
from groundup.reports.picture_sheet import one_of_each_class, write_sheet
from groundup.reports.sampling import LIMIT, Copies, Sample, read_in_batches
from groundup.reports.tables import Grid

__all__ = [
    "ExamplesSummary",
    "SplitSeen",
    "inspect_examples",
    "summarise_examples",
]

# examples that are encoded at a time
TOGETHER = 256
# times as many examples of one class as of another
IMBALANCE = 10.0
# classes that a warning names, and that are listed
_NAMED = 10
_LISTED = 50
# Numbers are no classes where there are more different ones than this, and few examples of each.
_FEW_NUMBERS = 20
_FEW_EXAMPLES = 10
# characters of an example that are shown
_SHOWN = 600


@dataclass
class SplitSeen:
    """What was seen of one split.

    Attributes:
        labels: How many examples each class has, by the target's name; a single target's is empty.
        numbers: The values of targets that are numbers, by their names.
        sides: Of the boxes that were looked at, the side of a square as large, in pixels of what a
            model reads.
        sample: The examples that were looked at closely, and how many there are.
        copies: How many examples repeat an earlier one exactly.
        shared: How many examples are in the training split as well.
    """

    split: Split
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    numbers: dict[str, list[float]] = field(default_factory=dict)
    sides: list[float] = field(default_factory=list)
    sample: Sample = field(default_factory=Sample)
    copies: int = 0
    shared: int = 0

    def add(self, targets: Targets, given: Sequence[Any], name: str = "") -> None:
        """Count the targets of examples as the task will read them."""
        if targets.kind in ("class", "classes"):
            counts = self.labels.setdefault(name, Counter())
            encoded = targets.encode(given)
            if encoded.dim() == 1:
                counts.update(targets.labels[int(label)] for label in encoded)
            else:  # an example may have several labels
                for label, count in zip(targets.labels, encoded.sum(0).tolist(), strict=True):
                    counts[label] += int(count)
        elif targets.kind == "boxes":
            counts = self.labels.setdefault(name, Counter())
            counts.update(label for target in given for label in target.labels)
        elif targets.kind == "numbers":
            for each in given:
                for own, value in _numbers_in(each, targets):
                    self.numbers.setdefault(f"{name}/{own}".strip("/"), []).append(value)
        for part, inner in targets.parts.items():
            found = [target.get(part) for target in given if target is not None]
            there = [each for each in found if not inner.lacks(each)]
            if there:
                self.add(inner, there, part)


@dataclass(frozen=True)
class ExamplesSummary:
    """Everything there is to show: the splits, what a model reads, the data card, and what deserves
    attention."""

    splits: list[SplitSeen]
    tensors: list[tuple[str, str]]
    card: dict[str, Any]
    warnings: list[str]


def inspect_examples(
    source: DataSource,
    task: Task,
    processor: LabelProcessor,
    cache: Path,
    sheet: Path,
    *,
    examples: int = 5,
    seed: int = 0,
    limit: int = LIMIT,
) -> list[RenderableType]:
    """Return what ``groundup data inspect`` prints of labelled examples; of pictures a sheet is
    written as well.

    Args:
        source: The recipe's data.
        task: Encodes and augments.
        processor: The run's.
        cache: Where the source keeps prepared files.
        sheet: The PNG to write.
        examples: How many examples are shown, and drawn on the sheet.
        seed: The run's.
        limit: How many examples of each split to look at closely.
    """
    found = summarise_examples(source, task, processor, cache, limit)
    splits = found.splits
    counts = [
        ("examples", *(f"{seen.sample.total:,}" for seen in splits)),
        ("looked at", *(seen.sample.in_words for seen in splits)),
        ("exact copies of earlier ones", *(f"{seen.copies:,}" for seen in splits)),
        ("also in train", *(f"{seen.shared:,}" if n else "" for n, seen in enumerate(splits))),
    ]
    names = ("", *(seen.split for seen in splits))
    shown: list[RenderableType] = [Grid.of("Data", names, counts, numbers=1)]
    shown += _list_classes(splits)
    shown += _list_numbers(splits)
    shown += list_boxes(splits, processor, found.card)
    shown += [
        Grid.of("What a model reads", ("tensor", "shape, type and values"), found.tensors),
        Grid.of("Data card", ("what", "value"), list(card_rows(found.card))),
    ]
    shown += [Text(f"Note: {warning}", style="yellow") for warning in found.warnings]
    shown += [line for seen in splits for line in _show_examples(seen, examples)]
    if len(processor.input_shape) == 3 and examples:
        write_sheet(source.examples("train", cache), task, processor, sheet, examples, seed)  # type: ignore[arg-type]
        shown.append(Text(f"Pictures before and after augmentation: {sheet}"))
    return shown


def summarise_examples(
    source: DataSource,
    task: Task,
    processor: LabelProcessor,
    cache: Path,
    limit: int = LIMIT,
) -> ExamplesSummary:
    """Return counts, shapes and warnings.

    Every example is counted, with its target, and compared with the others; what costs more than
    that is done for ``limit`` of each split, drawn from all.
    """
    splits: list[SplitSeen] = []
    tensors: dict[str, _Values] = {}
    copies = Copies()
    of_tokens = processor.head == "tokens"
    for split in source.splits():
        seen = SplitSeen(split, sample=Sample(limit))

        def count(batch: Sequence[Example], seen: SplitSeen = seen) -> None:
            found = [example.target for example in batch]
            if of_tokens:
                found = [label for labels in found for label in labels]
            seen.add(processor.targets, found)

        for batch in read_in_batches(source.examples(split, cache), TOGETHER):
            encode_located(count, batch)
            seen.sample.add(batch)
            copies.add(split, [example.inputs for example in batch])
        # What is wrong with one of them would stop the training.
        for batch in read_in_batches(seen.sample.rows, TOGETHER):
            encoded = encode_located(lambda some: task.encode(some, processor), batch)
            if isinstance(encoded, dict) and "boxes" in encoded:
                seen.sides += sides_of(encoded)
            if split == "train" and isinstance(encoded, dict):
                for name, values in encoded.items():
                    tensors.setdefault(name, _Values()).add(values)
        splits.append(seen)
    for seen in splits:
        seen.copies, seen.shared = copies.count(seen.split)
    card = source.card(cache)
    cut = processor.cut.notes() if processor.cut is not None else ()
    warnings = [*processor.notes, *cut, *data_notes(card), *_move_numbers(splits)]
    warnings += _list_warnings(splits, bool(processor.labels))
    warnings += warn_of_small_boxes(splits)
    described = [(name, values.describe()) for name, values in tensors.items()]
    return ExamplesSummary(splits, described, card, warnings)


# ------------------------------------------------------------------------------------------ showing
def _list_classes(splits: Sequence[SplitSeen]) -> Iterator[RenderableType]:
    """Yield how many examples each class has, of each target that has classes."""
    columns = ("class", *(seen.split for seen in splits))
    for name in splits[0].labels:
        counts = [seen.labels.get(name, Counter[str]()) for seen in splits]
        every = sum(counts, Counter[str]())
        listed = sorted((label for label, _ in every.most_common(_LISTED)), key=_number_or_word)
        rows = [(label, *(f"{own[label]:,}" for own in counts)) for label in listed]
        rows.append(("all", *(f"{own.total():,}" for own in counts)))
        left = len(every) - len(listed)
        caption = f"{left:,} rarer classes are not listed" if left else ""
        title = f"Classes of {name}" if name else "Classes"
        yield Grid.of(title, columns, rows, numbers=1, caption=caption)


def _list_numbers(splits: Sequence[SplitSeen]) -> Iterator[RenderableType]:
    """Yield how the numbers that are predicted are distributed, of each target that has any."""
    rows: list[tuple[str, ...]] = []
    for seen in splits:
        for name, values in seen.numbers.items():
            if not values:
                continue
            steps = [min(values), *np.percentile(values, PERCENTILES), max(values)]
            measures = (float(np.mean(values)), float(np.std(values)), *map(float, steps))
            rows.append((name or "target", seen.split, *map(number, measures)))
    if rows:
        percentiles = (f"{p}%" for p in PERCENTILES)
        columns = ("", "split", "mean", "deviation", "least", *percentiles, "most")
        yield Grid.of("Numbers to predict", columns, sorted(rows), numbers=2)


def _show_examples(seen: SplitSeen, count: int) -> Iterator[RenderableType]:
    """Yield some of the examples that were looked at: where each was read, its target and what it
    holds."""
    for example in one_of_each_class(seen.sample.rows, count):
        text = _in_words(example.inputs)
        if not text:
            continue  # of pictures there is a sheet
        if len(text) > _SHOWN:
            text = f"{text[:_SHOWN]} … {len(text) - _SHOWN:,} more characters"
        target = "" if example.target is None else f" → {example.target}"
        yield Text(f"{seen.split}: {example.name}{target}", style="bold", overflow="fold")
        yield Text(f"  {text}", overflow="fold")


def _in_words(inputs: Any) -> str:
    if isinstance(inputs, str):
        return inputs
    if isinstance(inputs, tuple):
        texts = list(map(str, inputs))
        # the words of a sentence, or whole texts
        return (" | " if any(" " in text for text in texts) else " ").join(texts)
    if isinstance(inputs, Mapping):
        return ", ".join(f"{name}: {value}" for name, value in inputs.items())
    return ""


def _list_warnings(splits: Sequence[SplitSeen], classes: bool) -> list[str]:
    found = [f"The {seen.split} split is empty." for seen in splits if not seen.sample.total]
    for seen in splits:
        if seen.copies:
            of = f"of {seen.sample.total:,} {seen.split} examples"
            found.append(f"{seen.copies:,} {of} are exact duplicates.")
        if seen.shared:
            found.append(f"{seen.shared:,} {seen.split} examples are also in the training split.")
    train, *held_out = splits
    if not classes:
        return found
    for name, counts in train.labels.items():
        of = f" of {name}" if name else ""
        there = [(label, count) for label, count in counts.most_common() if count]
        if not there:
            continue
        (most, many), (least, few) = there[0], there[-1]
        if len(there) == 1:
            found.append(f"All training examples{of} have the class {most!r}.")
        if many > IMBALANCE * few:
            found.append(
                f"Class {most!r}{of} has {many:,} training examples and {least!r} {few:,}: evaluate"
                " each by itself."
            )
        others = Counter(
            label for seen in held_out for label in (+seen.labels.get(name, Counter()))
        )
        missing = sorted(label for label, _ in there if not others[label])
        if missing and any(seen.sample.total for seen in held_out):
            listed = ", ".join(map(repr, missing[:_NAMED]))
            found.append(f"No held-out example has the class {listed}.")
    return found


def _move_numbers(splits: Sequence[SplitSeen]) -> list[str]:
    """Move targets that are numbers, but that the task takes for classes, to the numbers, and
    return a warning for each."""
    found = []
    for name, counts in list(splits[0].labels.items()):
        if not _are_numbers(counts):
            continue
        for seen in splits:
            taken = seen.labels.pop(name, Counter())
            seen.numbers[name] = [float(label) for label in taken.elements()]
        of = f" of {name}" if name else ""
        found.append(
            f"The target{of} holds {len(counts):,} different numbers, and the task takes each for"
            " a class. Predict them as numbers instead: task: regression."
        )
    return found


def _numbers_in(target: Any, targets: Targets) -> Iterator[tuple[str, float]]:
    """Yield the numbers of one example, each with its name; a single one has none."""
    names = targets.labels or tuple(str(n + 1) for n in range(targets.outputs))
    if isinstance(target, Mapping):
        values = [target.get(name) for name in names]
    else:
        values = list(target) if isinstance(target, list | tuple) else [target]
    for name, value in zip(names if targets.outputs > 1 else ("",), values, strict=False):
        amount = as_number(value)
        if amount is not None and math.isfinite(amount):
            yield name, amount


def _are_numbers(counts: Counter[str]) -> bool:
    """Whether labels are measurements: many different numbers, with few examples each, or not
    whole."""
    if len(counts) <= _FEW_NUMBERS or not all(map(_is_number, counts)):
        return False
    whole = all(float(label).is_integer() for label in counts)
    return not whole or counts.total() < _FEW_EXAMPLES * len(counts)


@dataclass
class _Values:
    """What the values of a tensor are, over several batches."""

    shape: tuple[int, ...] = ()
    dtype: str = ""
    least: float = math.inf
    most: float = -math.inf
    total: float = 0.0
    count: int = 0

    def add(self, values: Tensor) -> None:
        # where lengths vary, rows are padded to the longest of a batch
        self.shape = max(self.shape, tuple(values.shape[1:]))
        self.dtype = str(values.dtype).removeprefix("torch.")
        numbers = values.double()
        if numbers.numel():
            self.least = min(self.least, float(numbers.min()))
            self.most = max(self.most, float(numbers.max()))
            self.total += float(numbers.sum())
            self.count += numbers.numel()

    def describe(self) -> str:
        """Return shape, type and values in words."""
        kind = f"{' x '.join(map(str, self.shape)) or 'one number'}, {self.dtype}"
        if not self.count:
            return kind
        mean = self.total / self.count
        return f"{kind}, {self.least:.4g} to {self.most:.4g}, mean {mean:.4g}"


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def _number_or_word(label: str) -> tuple[bool, float, str]:
    """Return what sorts labels: numbers by their size, before words."""
    if _is_number(label):
        return False, float(label), label
    return True, 0.0, label
