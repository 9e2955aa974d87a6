"""Sequences of feature vectors in an .npz: all frames one after another, how many belong to each,
and labels.

Shape legend: N sequences, T frames of one, F features, S frames of all.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.data import DataContext, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.reading.location import Origin
from groundup.data.reading.npz import read_arrays
from groundup.data.reading.source import Source
from groundup.data.splitting.drawing import SplitRule
from groundup.data.splitting.held_out import (
    are_texts,
    draw_missing,
    label_counts,
    leave_out_repeated,
    lengths_of,
    refuse_empty,
)
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.data.stream.row_order import similar_lengths_setting

__all__ = ["Sequences"]

_KINDS = (".npz",)


@data("sequences")
class Sequences(Source):
    """Sequences of feature vectors with a label each, such as sounds or gestures, in .npz files.

    Sequences of the same frames are on one side: what is held out by name is left out of training.
    """

    reads_datasets = False
    reads_texts = False
    has_labels = True
    for_drawing = ("folds", "fold", "groups_key")

    values_key: str = setting("X", "name of the frames, (frames of all, features)")
    lengths_key: str = setting("lengths", "name of the numbers of frames, one a sequence")
    labels_key: str = setting("y", "name of the labels, one a sequence")
    groups_key: str | None = setting(
        None,
        "name of what sequences belong to, such as speakers, one a sequence: each group is on one"
        " side",
    )
    similar_lengths: bool = similar_lengths_setting("sequences")
    folds: int | None = setting(
        None, "cut the sequences, or groups, into N folds, one of them held out", ge=2
    )
    fold: int = setting(0, "the fold that is held out, from 0", ge=0)

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        return self.rule.problem(self.given("fraction", "fold"))

    @property
    def rule(self) -> SplitRule:
        """How sequences are held out where none are named."""
        return super().rule._replace(folds=self.folds, fold=self.fold)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        return self.rule.splits(Origin(self, _KINDS).held_out)

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the sequences of a split in the order of the files; inputs are (T, F).

        Raises:
            DataError: If a file cannot be read, or its arrays do not fit each other.
        """
        origin = Origin(self, _KINDS)
        named = {each: self._read_sequences(each, origin) for each in ("train", *origin.held_out)}
        group_of = {id(example): group for own in named.values() for example, group in own}
        found = {each: [example for example, _ in own] for each, own in named.items()}
        copies = _find_copies(example for own in found.values() for example in own)
        leave_out_repeated(found, lambda example: [copies.get(id(example), f"{id(example)}")])
        # Transcripts, nearly each of which is there once, are no classes to be trained on each.
        classes = not are_texts([example.target for own in found.values() for example in own])
        chosen = draw_missing(
            found,
            origin.held_out,
            lambda example: _keys_of(group_of[id(example)], copies.get(id(example))),
            lambda example: example.target if classes else None,
            self.rule,
        )[split]
        if not chosen:
            raise refuse_empty(split, self.place, self.rule, origin.held_out)
        return chosen

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        return Origin(self, _KINDS).contents()

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        examples = self.examples(context.split, context.cache)
        lengths = np.array([[len(each.inputs)] for each in examples], np.int64)
        return open_indexed_stream(
            examples, context, similar_lengths=self.similar_lengths, lengths=lengths
        )

    def card(self, cache: Path) -> dict[str, Any]:
        """Return the sequences of each label in each split, their lengths, how they were split, and
        the licence."""
        card = Origin(self, _KINDS).about()
        for split in self.splits():
            found = self.examples(split, cache)
            frames = [len(example.inputs) for example in found]
            card |= {"features": np.shape(found[0].inputs)[1]}
            card[split] = (
                label_counts(found) | {"frames": sum(frames)} | lengths_of(frames, "frames")
            )
        return card | {"kept_together": self.groups_key or "nothing"}

    def _read_sequences(self, split: Split, origin: Origin) -> list[tuple[Example, str]]:
        """Return every sequence of the files of a split, with the group that it belongs to."""
        keys = [self.values_key, self.lengths_key, self.labels_key]
        if self.groups_key:
            keys.append(self.groups_key)
        remedy = "Set data.values_key, lengths_key, labels_key or groups_key"
        found: list[tuple[Example, str]] = []
        for _, file in origin.files(split):
            values, lengths, labels, *groups = read_arrays(file.path, keys, remedy)
            columns = dict(zip(keys[2:], (labels, *groups), strict=True))
            _refuse_misfits(str(file.path), values, lengths, columns)
            # a sequence alone is its own group, by its number: so the same file splits the same way
            first = len(found) + 1
            names = [str(number) for number in range(first, first + len(lengths))]
            belongs = [str(group) for group in groups[0].tolist()] if groups else names
            ends = np.cumsum(lengths).tolist()
            begins = [0, *ends[:-1]]
            rows = zip(names, begins, ends, labels.tolist(), belongs, strict=True)
            for number, (name, begin, end, label, group) in enumerate(rows, 1):
                place = f"{file.path} sequence {number}"
                found.append((Example(name, values[begin:end], label, place), group))
        return found[: self.limit]


def _find_copies(examples: Iterable[Example]) -> dict[int, str]:
    """Return a digest of the frames of each sequence that is there more than once, by its id."""
    digests = {
        id(example): hashlib.blake2b(example.inputs.tobytes(), digest_size=16).hexdigest()
        for example in examples
    }
    counts = Counter(digests.values())
    return {key: f"frames {digest}" for key, digest in digests.items() if counts[digest] > 1}


def _keys_of(group: str, copies: str | None) -> list[str]:
    # By its group alone where there is no copy: so the draw is that of before copies were known.
    return [group] if copies is None else [group, copies]


def _refuse_misfits(
    path: str, values: NDArray[Any], lengths: NDArray[Any], columns: dict[str, NDArray[Any]]
) -> None:
    """Raise an error where the arrays are not of one another's sizes."""
    problem = ""
    # What is wrong is said of the first array that does not fit: all later checks would only repeat
    # it.
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
        problem = f"the lengths sum to {int(lengths.sum())}, but there are {len(values)} frames"
    for key, column in columns.items():
        if not problem and column.shape != lengths.shape:
            problem = (
                f"{key} has shape {column.shape}, but there are {len(lengths)} sequences; allowed:"
                " one a sequence"
            )
    if problem:
        raise DataError(path, problem, "Correct the file, or name other arrays of it")
