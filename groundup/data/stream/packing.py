"""Which tokens go into which row: documents are cut into pieces, and pieces are packed into rows of
fixed length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.seeding import scramble
from groundup.core.settings import Settings, setting
from groundup.core.values import Split

__all__ = ["Packing", "Plan", "best_fit_decreasing", "pieces_per_row", "plan_rows"]

Integers = NDArray[np.int64]
_CUTTING = {"too_long": ("auto", "split")}


class Packing(Settings):
    """How documents become rows."""

    pack: bool = setting(True, "pack several documents into one row; otherwise one piece a row")
    too_long: Literal["auto", "split", "drop", "truncate", "error"] = setting(
        "auto",
        "what to do with a document longer than the context; auto: split where every token is"
        " trained on, error where only some are (chats), because a part of a chat lacks what the"
        " answer depends on; truncate cuts a chat after the last answer that is whole, and leaves"
        " out one that has none",
    )
    on_fully_masked: Literal["error", "drop"] = setting(
        "error",
        "what to do with an example that has no token to train on; a warning counts those left out",
    )
    random_offset: bool = setting(
        True,
        "cut long training documents at a place that changes every epoch",
        applies_when=_CUTTING,
    )
    evaluation_overlap: float = setting(
        0.5,
        "share of the context that a later window of a long validation document repeats without"
        " scoring it",
        applies_when=_CUTTING,
        ge=0.0,
        le=0.95,
    )


@dataclass(frozen=True)
class Plan:
    """Rows of one epoch. Piece p feeds ``tokens[start : start + length]`` of its document and
    predicts one further on.

    Attributes:
        document: (P,) which document; pieces are ordered by row.
        start: (P,) the first token fed.
        length: (P,) how many tokens are fed, at least 1.
        first_scored: (P,) how many predictions at the piece's start are left out: an earlier piece
            scored them.
        row_starts: (R + 1,) row r holds the pieces ``row_starts[r] : row_starts[r + 1]``.
        dropped: How many documents were left out as too long.
        truncated: How many documents lost their end.
        varies: Whether another key can give another number of rows.
    """

    document: Integers
    start: Integers
    length: Integers
    first_scored: Integers
    row_starts: Integers
    dropped: int = 0
    truncated: int = 0
    varies: bool = False

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.row_starts) - 1


def pieces_per_row(sequence_length: int, packing: Packing) -> int:
    """Return the most pieces a row may hold, so that the boundaries of a batch have a fixed
    size."""
    # enough for texts of eight tokens; more pieces would only make the boundaries of a batch longer
    return max(8, sequence_length // 8) if packing.pack else 1


def plan_rows(
    lengths: NDArray[Any],
    sequence_length: int,
    key: int,
    packing: Packing,
    split: Split,
    *,
    masked: bool = False,
    name: Callable[[int], str] = lambda number: f"example {number}",
) -> Plan:
    """Cut documents into pieces and pack these into rows.

    Every token of a document but its first is predicted exactly once, in training and in validation
    alike, unless ``too_long`` drops or truncates.

    Args:
        lengths: (D,) tokens of each document, its end tokens included.
        sequence_length: The length of a row, T.
        key: What the cuts and the packing of this epoch depend on, from ``seeding.key``; validation
            ignores it.
        packing: The settings.
        split: Training is cut at random offsets; validation overlaps its windows.
        masked: Whether only some tokens are trained on (decides what ``too_long: auto`` means).
        name: What to call document number n in a message.

    Returns:
        The plan, a function of the arguments alone.

    Raises:
        DataError: If a document is longer than the context and that is an error.
    """
    # (D,) positions that feed a token and predict the next
    fed = np.maximum(np.asarray(lengths, dtype=np.int64) - 1, 0)
    # an example of one token feeds nothing, and falls out by itself
    long = fed > sequence_length
    policy: str = packing.too_long
    if policy == "auto":
        policy = "error" if masked else "split"
    if policy == "error" and long.any():
        raise _too_long(
            int(np.flatnonzero(long)[0]), lengths, sequence_length, int(long.sum()), name
        )
    if policy == "drop":
        fed = np.where(long, 0, fed)
    if policy == "truncate":
        fed = np.minimum(fed, sequence_length)
    shifts = policy == "split" and split == "train" and packing.random_offset and bool(long.any())
    cut_key = seeding.key(key, "cut") if shifts else None
    overlap = _overlap(sequence_length, packing, split)
    pieces = _cut_documents(fed, sequence_length, cut_key, overlap)
    rows = np.arange(len(pieces[0]), dtype=np.int64)
    if packing.pack:
        # Pieces of equal length are interchangeable: which of them share a row changes every epoch.
        ties: NDArray[Any] = rows
        if split == "train":
            ties = scramble(rows, seeding.key(key, "ties"))
        rows = best_fit_decreasing(
            pieces[2], sequence_length, pieces_per_row(sequence_length, packing), ties
        )
    # stable: pieces of a row stay in the order of the documents
    by_row = np.argsort(rows, kind="stable")
    document, start, length, first_scored = (values[by_row] for values in pieces)
    return Plan(
        document,
        start,
        length,
        first_scored,
        row_starts=np.concatenate(([0], np.cumsum(np.bincount(rows)))).astype(np.int64),
        dropped=int(long.sum()) * (policy == "drop"),
        truncated=int(long.sum()) * (policy == "truncate"),
        varies=shifts,
    )


def _overlap(sequence_length: int, packing: Packing, split: Split) -> int:
    if split == "train":
        return 0
    return min(int(packing.evaluation_overlap * sequence_length), sequence_length - 1)


def _cut_documents(
    fed: Integers, window: int, key: int | None, overlap: int
) -> tuple[Integers, Integers, Integers, Integers]:
    """Return document, start, length and first_scored of every piece, in the order of the
    documents.

    The first window ends at ``window`` or, with a key, at a random place in ``[1, window]`` where a
    document is longer; each later one scores the next ``window - overlap`` positions and feeds
    ``overlap`` positions before them.
    """
    first_end = np.full(len(fed), window, dtype=np.int64)
    if key is not None:
        # else the same tokens would begin every window, and never see what is before them
        offsets = 1 + (scramble(np.arange(len(fed)), key) % np.uint64(window)).astype(np.int64)
        first_end = np.where(fed > window, offsets, first_end)
    stride = window - overlap
    windows = np.where(fed > 0, 1 + -(-np.maximum(fed - first_end, 0) // stride), 0)
    document = np.repeat(np.arange(len(fed), dtype=np.int64), windows)
    number = np.arange(len(document), dtype=np.int64) - np.repeat(
        np.cumsum(windows) - windows, windows
    )
    scored_from = np.where(number > 0, first_end[document] + (number - 1) * stride, 0)
    scored_to = np.minimum(first_end[document] + number * stride, fed[document])
    first_scored = np.where(number > 0, overlap, 0)
    start = scored_from - first_scored
    return document, start, scored_to - start, first_scored


def best_fit_decreasing(
    lengths: Integers, capacity: int, max_pieces: int, ties: NDArray[Any]
) -> Integers:
    """Assign pieces to rows: the longest first, each to the fullest row with room for it.

    Args:
        lengths: (P,) in ``[1, capacity]``.
        capacity: The length of a row.
        max_pieces: The most pieces in a row.
        ties: (P,) decides between pieces of equal length. The number of rows does not depend on it.

    Returns:
        (P,) the row of each piece, numbered from 0 without gaps.

    Source:
        Ding et al. 2024, "Fewer truncations improve language modeling", arXiv:2404.10830, section
        3. Departs from the
        paper: rows with equal room are kept in a list and the lists that are not empty in the bits
            of an integer, which
        takes the place of the segment tree.
    """
    order = np.lexsort((ties, -lengths))
    rows: list[int] = []
    room_lists: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the room left in them
    occupied = 0  # bit r is set where room_lists[r] is not empty
    held: list[int] = []  # pieces in each row
    for length in lengths[order].tolist():
        # The lowest bit at or above the length: one operation on an integer of a few words, where a
        # search would take a step for each length.
        fitting = occupied >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = room_lists[room].pop()
            if not room_lists[room]:
                occupied ^= 1 << room
            held[row] += 1
        else:
            room = capacity
            row = len(held)
            held.append(1)
        rows.append(row)
        left = room - length
        if left and held[row] < max_pieces:
            room_lists[left].append(row)
            occupied |= 1 << left
    result = np.empty(len(rows), dtype=np.int64)
    result[order] = rows
    return result


def _too_long(
    number: int, lengths: Any, context: int, others: int, name: Callable[[int], str]
) -> DataError:
    more = f" ({others - 1} more examples are too long)" if others > 1 else ""
    return DataError(
        name(number),
        f"has {int(lengths[number])} tokens{more}; the context of {context} allows {context + 1}",
        "Raise the sequence length, shorten the example, or set too_long to truncate, drop or"
        " split",
    )
