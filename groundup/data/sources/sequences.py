"""Sequences of feature vectors in an .npz: all frames one after another, how many belong to each,
and labels.

Shape legend: N sequences, T frames of one, F features, S frames of all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from groundup.core.contracts.data import DataContext, DataSource, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.reading.location import changed
from groundup.data.reading.npz import read_arrays
from groundup.data.splitting.held_out import (
    Drawing,
    draw,
    label_counts,
    lengths_of,
    problem_with_drawing,
    refuse_empty,
)
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["Frames"]


@data("frames")
class Frames(DataSource):
    """Sequences of feature vectors with a label each, such as sounds or gestures."""

    path: str = setting(..., "The .npz, relative to the current folder")
    values_key: str = setting("X", "Name of the frames, (frames of all, features)")
    lengths_key: str = setting("lengths", "Name of the numbers of frames, one a sequence")
    labels_key: str = setting("y", "Name of the labels, one a sequence")
    groups_key: str | None = setting(
        None,
        "Name of what sequences belong to, such as speakers, one a sequence: each group is on one"
        " side",
    )
    validation_path: str | None = setting(
        None, "Another .npz that is held out as it is, instead of a fraction"
    )
    validation_fraction: float = setting(
        0.1, "Share of the sequences, or of the groups, held out", gt=0, lt=1
    )
    folds: int | None = setting(
        None, "Cut the sequences, or groups, into so many folds, one of them held out", ge=2
    )
    fold: int = setting(0, "The fold that is held out, from 0", ge=0)
    split_seed: int = setting(0, "Another seed holds out other sequences", ge=0)
    licence: str = setting("", "Licence of the data, for the data card")

    @model_validator(mode="after")
    def _consistent(self) -> Frames:
        drawing = changed(self, "validation_fraction", "folds", "fold", "split_seed", "groups_key")
        named = "validation_path" if self.validation_path is not None else None
        problem = problem_with_drawing(self._drawing(), drawing, named)
        if problem:
            raise ValueError(problem)
        return self

    def _drawing(self) -> Drawing:
        return Drawing(self.validation_fraction, self.split_seed, self.folds, self.fold)

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the sequences of a split in the order of the file; inputs are (T, F).

        Raises:
            DataError: If the file cannot be read, or its arrays do not fit each other.
        """
        if self.validation_path is not None:
            return self._read(self.validation_path if split == "validation" else self.path)[0]
        every, groups = self._read(self.path)
        sides = draw([(group,) for group in groups], [e.target for e in every], self._drawing())
        chosen = [example for example, side in zip(every, sides, strict=True) if side == split]
        if not chosen:
            raise refuse_empty(split, self.path, self._drawing())
        return chosen

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return the sequences of each label in each split, their lengths, how they were split, and
        the licence."""
        card: dict[str, Any] = {"source": self.path, "licence": self.licence or "not stated"}
        splits: tuple[Split, ...] = ("train", "validation")
        for split in splits:
            found = self.examples(split, cache)
            frames = [len(example.inputs) for example in found]
            card |= {"features": np.shape(found[0].inputs)[1]}
            card[split] = (
                label_counts(found) | {"frames": sum(frames)} | lengths_of(frames, "frames")
            )
        return card | {"kept_together": self.groups_key or "nothing"}

    def _read(self, path: str) -> tuple[list[Example], list[str]]:
        """Return every sequence of a file, and the name of the group that each belongs to."""
        keys = [
            self.values_key,
            self.lengths_key,
            self.labels_key,
            *([self.groups_key] if self.groups_key else []),
        ]
        values, lengths, labels, *groups = read_arrays(
            Path(path).expanduser(),
            keys,
            "Set data.values_key, lengths_key, labels_key or groups_key",
        )
        _refuse_misfits(path, values, lengths, dict(zip(keys[2:], (labels, *groups), strict=True)))
        ends = np.cumsum(lengths)
        examples = [
            Example(f"{number}", values[end - length : end], label, f"{path} sequence {number}")
            for number, (end, length, label) in enumerate(
                zip(ends.tolist(), lengths.tolist(), labels.tolist(), strict=True), 1
            )
        ]
        return examples, (
            [str(group) for group in groups[0].tolist()] if groups else [e.name for e in examples]
        )


def _refuse_misfits(
    path: str, values: NDArray[Any], lengths: NDArray[Any], columns: dict[str, NDArray[Any]]
) -> None:
    """Raise an error where the arrays are not of one another's sizes."""
    problem = ""
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        problem = (
            f"the frames have shape {values.shape} and type {values.dtype}; allowed: numbers"
            " (frames, features)"
        )
        if values.ndim == 3:
            problem += "; sequences of one length are read by data arrays"
    elif lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        problem = (
            f"the lengths have shape {lengths.shape} and type {lengths.dtype}; allowed: whole"
            " numbers (sequences,)"
        )
    elif not len(lengths):
        problem = "there are no sequences"
    elif lengths.min() < 1:
        problem = (
            f"sequence {int(lengths.argmin()) + 1} has {int(lengths.min())} frames; allowed: 1 or"
            " more"
        )
    elif int(lengths.sum()) != len(values):
        problem = f"the lengths sum to {int(lengths.sum())}, and there are {len(values)} frames"
    for key, column in columns.items():
        if not problem and column.shape != lengths.shape:
            problem = (
                f"{key} has shape {column.shape}, and there are {len(lengths)} sequences; allowed:"
                " one a sequence"
            )
    if problem:
        raise DataError(path, problem, "Correct the file, or name other arrays of it")
