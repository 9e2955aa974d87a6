"""The side of every document, and what a data card says of them: drawn from the facts of all
documents, without reading a text again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.values import Split
from groundup.data.cleaning.cleaning import Cleaning, CleaningReport
from groundup.data.cleaning.decisions import Decisions
from groundup.data.cleaning.facts import SIDES, read_facts
from groundup.data.reading.placement import Placement
from groundup.data.splitting.drawing import SplitRule, split_examples

__all__ = ["REMOVED", "Survey"]

REMOVED = 0  # the side of a document that is on none
_GROUPS = 1000  # documents of which a share of none may be drawn
# the ends matter most: empty pages and whole books are what goes wrong
_PERCENTILES = (1, 10, 50, 90, 99)
# lengths are counted below this many characters; longer ones are few, and noted one by one
_COUNTED_LENGTHS = 1 << 16


class Survey:
    """The sides of documents whose facts are in a folder.

    Args:
        folder: It has the facts of all documents, and room for files.
        settings: What cleaning removes.
        rule: How splits are drawn that have no documents of their own.
        held_out: The splits that have documents of their own.
        report: What is known of removed documents so far; it is completed.

    Attributes:
        sides: (D,) the side of each document, as in ``SIDES``; ``REMOVED``: none.
        report: What was kept and removed.
        groups: What the first documents are drawn by, for messages.
    """

    def __init__(
        self,
        folder: Path,
        settings: Cleaning,
        rule: SplitRule,
        held_out: Sequence[Split],
        report: CleaningReport,
    ) -> None:
        self._folder = folder
        self._rule = rule.without(held_out)
        self._decisions = Decisions(folder, settings)
        self.report = report
        self.groups: list[str] = []
        self.sides: NDArray[np.uint8] = np.zeros(len(self._decisions.removed), np.uint8)
        if held_out:
            self._decisions.remove_near_held_out()
        for first, facts in read_facts(folder):
            self.sides[first : first + len(facts)] = facts["side"]
        self.sides[self._decisions.removed > 0] = REMOVED

    def draw(self) -> None:
        """Put every group of the documents named for training on the side that its hash says."""
        for first, groups in self._decisions.groups():
            own = self.sides[first : first + len(groups)]
            for place in np.flatnonzero(own != REMOVED).tolist():
                if own[place] == SIDES["train"]:
                    own[place] = SIDES[self._rule.side_of(groups[place])]
                if len(self.groups) < _GROUPS:
                    self.groups.append(groups[place])

    def draw_by_columns(self, origins: Sequence[str], placement: Placement) -> None:
        """Put the documents named for training on the sides that their groups or times say, near
        duplicates together; a later copy that is held out takes the earlier out of training.

        All groups and times are in memory.

        Args:
            origins: (D,) where each document is from, by which its group and time are known.
            placement: The groups and times.
        """
        groups = [group for _, part in self._decisions.groups() for group in part]
        kept = np.flatnonzero(self.sides != REMOVED).tolist()
        self.groups = [groups[number] for number in kept[:_GROUPS]]
        keys = {n: (groups[n], *placement.keys(origins[n])) for n in kept}
        train = SIDES["train"]
        taken = {key for n, own in keys.items() if self.sides[n] != train for key in own}
        drawn = [n for n in kept if self.sides[n] == train]
        sides = split_examples(
            [keys[n] for n in drawn],
            [None] * len(drawn),
            self._rule,
            [placement.time(origins[n]) for n in drawn],
        )
        for number, side in zip(drawn, sides, strict=True):
            if side != "train":
                taken.update(keys[number])
        late = []
        for number, side in zip(drawn, sides, strict=True):
            self.sides[number] = SIDES[side]
            if side == "train" and not taken.isdisjoint(keys[number]):
                late.append(number)
        removed = np.array(late, np.int64)
        self.sides[removed] = REMOVED
        self._decisions.remove(removed, "group_is_held_out")

    def examples(self) -> dict[int, str]:
        """Return the numbers of documents that the report has yet to show, and why each is
        removed."""
        return self._decisions.examples(self.report)

    def card(self, splits: Iterable[Split]) -> dict[str, Any]:
        """Return counts by split and the cleaning report as plain values."""
        self._decisions.count(self.report)
        counts = {split: _Counts() for split in splits}
        for first, facts in read_facts(self._folder):
            sides = self.sides[first : first + len(facts)]
            for split, count in counts.items():
                count.add(facts[sides == SIDES[split]])
        cards = {split: count.as_dict() for split, count in counts.items()}
        return cards | {"cleaning": self.report.as_dict()}


@dataclass
class _Counts:
    """Counts of documents, and of their lengths: exact, in memory that does not grow with them."""

    documents: int = 0
    characters: int = 0
    bytes: int = 0
    _short: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_COUNTED_LENGTHS, np.int64))
    _long: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, facts: NDArray[Any]) -> None:
        """Count documents."""
        lengths = facts["characters"].astype(np.int64)
        self.documents += len(facts)
        self.characters += int(lengths.sum())
        self.bytes += int(facts["bytes"].sum())
        short = lengths < _COUNTED_LENGTHS
        self._short += np.bincount(lengths[short], minlength=_COUNTED_LENGTHS)
        self._long.append(lengths[~short])

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a data card."""
        return {
            "documents": self.documents,
            "characters": self.characters,
            "bytes": self.bytes,
            "length_percentiles_characters": {
                f"p{rank}": round(self._percentile(rank)) for rank in _PERCENTILES
            },
        }

    def _percentile(self, rank: int) -> float:
        """Return a percentile as ``numpy.percentile`` computes it: between two lengths, linear."""
        if not self.documents:
            return 0.0
        place = (self.documents - 1) * rank / 100
        low = self._at(int(place))
        high = self._at(min(int(place) + 1, self.documents - 1))
        return low + (high - low) * (place - int(place))

    def _at(self, place: int) -> int:
        """Return the length of which ``place`` others are no longer."""
        below = np.cumsum(self._short)
        if place < below[-1]:
            return int(np.searchsorted(below, place, side="right"))
        return int(np.sort(np.concatenate(self._long))[place - below[-1]])
