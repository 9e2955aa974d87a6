"""Looking at labelled examples before training on them: classes, shapes, duplicates, and a sheet of
pictures.

Shape legend: C channels, H rows, W columns.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import RenderableType
from rich.text import Text
from torch import Tensor

from groundup.contracts.data import DataSource
from groundup.contracts.processors import LabelProcessor
from groundup.contracts.tasks import Task
from groundup.core.error_location import encode_located
from groundup.core.values import Batch, Example, Split, StoredFile
from groundup.media.images import draw_sheet
from groundup.reports.inspect_texts import card_rows, make_table

__all__ = [
    "ClassesSeen",
    "ExamplesSummary",
    "inspect_examples",
    "summarise_examples",
    "write_sheet",
]

SPLITS: tuple[Split, ...] = ("train", "validation")
# columns of the sheet next to the originals
VERSIONS = 7
# examples that shapes and values are taken from
ENCODED = 256
# times as many examples of one class as of another
IMBALANCE = 10.0
# classes that a warning names
_NAMED = 10


@dataclass
class ClassesSeen:
    """What was seen of one split."""

    split: Split
    labels: Counter[str] = field(default_factory=Counter)
    hashes: Counter[bytes] = field(default_factory=Counter)

    @property
    def duplicates(self) -> int:
        """How many examples repeat an earlier one exactly."""
        return sum(count - 1 for count in self.hashes.values())


@dataclass(frozen=True)
class ExamplesSummary:
    """Everything there is to show: the splits, what a model reads, the data card, and what deserves
    attention."""

    splits: list[ClassesSeen]
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
) -> list[RenderableType]:
    """Return what ``groundup data inspect`` prints of labelled examples; of pictures a sheet is
    written as well.

    Args:
        source: The recipe's data.
        task: Encodes and augments.
        processor: The run's.
        cache: Where the source keeps prepared files.
        sheet: The PNG to write.
        examples: How many examples the sheet shows.
        seed: The run's.
    """
    found = summarise_examples(source, task, processor, cache)
    names = sorted({label for seen in found.splits for label in seen.labels}, key=_number_or_word)
    counts = [(name, *(f"{seen.labels[name]:,}" for seen in found.splits)) for name in names]
    counts.append(("all", *(f"{seen.labels.total():,}" for seen in found.splits)))
    shown: list[RenderableType] = [
        make_table("Classes", ("class", *SPLITS), counts),
        make_table("What a model reads", ("tensor", "shape, type and values"), found.tensors),
        make_table("Data card", ("what", "value"), list(card_rows(found.card))),
    ]
    shown += [Text(f"Note: {warning}", style="yellow") for warning in found.warnings]
    if len(processor.input_shape) == 3 and examples:
        write_sheet(source.examples("train", cache), task, processor, sheet, examples, seed)  # type: ignore[arg-type]
        shown.append(Text(f"Pictures before and after augmentation: {sheet}"))
    return shown


def summarise_examples(
    source: DataSource, task: Task, processor: LabelProcessor, cache: Path
) -> ExamplesSummary:
    """Return counts, shapes and warnings; every example is counted and read once."""
    splits: list[ClassesSeen] = []
    first: list[Any] = []
    held_out: list[Any] = []
    for split in SPLITS:
        seen = ClassesSeen(split)
        for example in source.examples(split, cache):
            seen.labels.update(_labels(example.target))
            seen.hashes[_digest(example.inputs)] += 1
            if split == "train" and len(first) < ENCODED:
                first.append(example)
            elif split != "train":
                held_out.append(example)
        splits.append(seen)
    # What is wrong with one of them would stop the training at its first validation.
    for start in range(0, len(held_out), ENCODED):
        encode_located(lambda some: task.encode(some, processor), held_out[start : start + ENCODED])
    tensors: list[tuple[str, str]] = []
    if first:
        batch = encode_located(lambda some: task.encode(some, processor), first)
        if isinstance(batch, dict):
            tensors = [(name, _describe(values)) for name, values in batch.items()]
    warnings = _list_warnings(splits, bool(processor.labels))
    return ExamplesSummary(splits, tensors, source.card(cache), warnings)


def write_sheet(
    examples: Sequence[Example],
    task: Task,
    processor: Any,
    path: Path,
    count: int = 5,
    seed: int = 0,
) -> None:
    """Write a PNG: a row for each example, the original first, then as training will see it, each
    time another way.

    Args:
        examples: Of the training split; the first of each class is taken, then the second, ...
        task: Encodes and augments.
        processor: The run's.
        path: The PNG.
        count: How many examples to show.
        seed: The run's.
    """
    chosen = _one_of_each_class(examples, count)
    batch = _encode_batch(task, chosen, processor)
    columns = [("original", batch)]
    for version in range(VERSIONS if task.augments else 0):
        numbers = np.arange(len(chosen), dtype=np.int64) + version * len(examples)
        # any others will do; 7919 is a prime, so that neighbours get partners far apart
        partners = [examples[int(place)] for place in (numbers * 7919 + 13) % len(examples)]
        encode = partial(_encode_batch, task, partners, processor)
        changed = task.augment(batch, numbers, encode, processor, seed)
        columns.append((f"augmented {version + 1}", changed))
    drawn = [(_to_pictures(each, processor), _caption(each, processor)) for _, each in columns]
    rows = [
        [(pictures[row], captions[row]) for pictures, captions in drawn]
        for row in range(len(chosen))
    ]
    draw_sheet(rows, [title for title, _ in columns], path)


def _encode_batch(task: Task, examples: Sequence[Example], processor: Any) -> Batch:
    batch = task.encode(examples, processor)
    assert isinstance(batch, dict)
    return batch


def _one_of_each_class(examples: Sequence[Example], count: int) -> list[Example]:
    turn: Counter[str] = Counter()
    ranked = []
    for place, example in enumerate(examples):
        label = str(example.target)
        ranked.append((turn[label], place))
        turn[label] += 1
    return [examples[place] for _, place in sorted(ranked)[:count]]


def _to_pictures(batch: Batch, processor: Any) -> NDArray[np.float32]:
    """Return (B, H, W, C), 0 to 1."""
    shown: Tensor = processor.inputs.to_pixels(batch["inputs"])
    return shown.clamp(0, 1).permute(0, 2, 3, 1).float().numpy()


def _caption(batch: Batch, processor: Any) -> list[str]:
    own = [processor.labels[int(label)] for label in batch["labels"]]
    if "mix" not in batch:
        return own
    other = [processor.labels[int(label)] for label in batch["labels_2"]]
    captions = []
    for one, two, share in zip(own, other, batch["mix"].tolist(), strict=True):
        # a share that would be shown as 100% was not mixed
        captions.append(one if share > 0.995 else f"{share:.0%} {one} {1 - share:.0%} {two}")
    return captions


def _list_warnings(splits: Sequence[ClassesSeen], classes: bool) -> list[str]:
    train, held_out = splits
    found = [f"The {seen.split} split is empty." for seen in splits if not seen.hashes]
    for seen in splits:
        if seen.duplicates:
            total = sum(seen.hashes.values())
            found.append(
                f"{seen.duplicates:,} of {total:,} {seen.split} examples are exact duplicates."
            )
    shared = sum(count for key, count in held_out.hashes.items() if key in train.hashes)
    if shared:
        found.append(f"{shared:,} validation examples are also in the training split.")
    if classes and train.labels:
        (most, many), (least, few) = train.labels.most_common()[0], train.labels.most_common()[-1]
        if len(train.labels) == 1:
            found.append(f"All training examples have the class {most!r}.")
        if many > IMBALANCE * few:
            found.append(
                f"Class {most!r} has {many:,} training examples and {least!r} {few:,}: evaluate"
                " each by itself."
            )
        missing = sorted(train.labels.keys() - held_out.labels.keys())
        if missing and held_out.hashes:
            found.append(
                f"No held-out example has the class {', '.join(map(repr, missing[:_NAMED]))}."
            )
    return found


def _labels(target: Any) -> list[str]:
    if target is None or isinstance(target, float):
        return []
    if isinstance(target, list | tuple):
        # an example may have several labels
        return [str(each) for each in target]
    return [str(target)]


def _digest(inputs: Any) -> bytes:
    """Return a hash of what an example holds: of a file its bytes."""
    if isinstance(inputs, Path):
        with inputs.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    if isinstance(inputs, StoredFile):
        return hashlib.sha256(inputs.read()).digest()
    if isinstance(inputs, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(inputs).tobytes()).digest()
    return hashlib.sha256(repr(inputs).encode()).digest()


def _describe(values: Tensor) -> str:
    shape = " x ".join(map(str, values.shape[1:])) or "one number"
    numbers = values.double()
    if not numbers.numel():
        return f"{shape}, {str(values.dtype).removeprefix('torch.')}"
    spread = (
        f"{float(numbers.min()):.4g} to {float(numbers.max()):.4g}, mean"
        f" {float(numbers.mean()):.4g}"
    )
    return f"{shape}, {str(values.dtype).removeprefix('torch.')}, {spread}"


def _number_or_word(label: str) -> tuple[bool, float, str]:
    """Return what sorts labels: numbers by their size, before words."""
    if label.replace(".", "", 1).removeprefix("-").isdecimal():
        return False, float(label), label
    return True, 0.0, label
