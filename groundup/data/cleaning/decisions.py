"""Which documents are kept, and which belong together: what follows from the facts of all of them.

Of each document ten bytes or so are in memory, however long it is: a reason, its set of
near-duplicates and a place in a list.

Legend: D documents, M documents in sets of near-duplicates.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.data.cleaning.cleaning import EXAMPLES_A_REASON, Cleaning, CleaningReport
from groundup.data.cleaning.duplicates import find_near_duplicates, first_of_near_duplicates
from groundup.data.cleaning.equal_keys import Rows, sort_by_key, split_equal
from groundup.data.cleaning.facts import FACTS, REASONS, SIDES, read_facts

__all__ = ["Decisions"]

_DIGEST_CHARACTERS = 32


class Decisions:
    """What becomes of each document.

    Args:
        folder: It has the facts of all documents, and room for files.
        settings: What cleaning removes.

    Attributes:
        removed: (D,) why each document is removed: the place in ``REASONS``; 0: it is kept.
    """

    def __init__(self, folder: Path, settings: Cleaning) -> None:
        self._folder = folder
        self._settings = settings
        rows = (folder / "facts.bin").stat().st_size // FACTS.itemsize
        self.removed: NDArray[np.uint8] = np.zeros(rows, np.uint8)
        for first, facts in read_facts(folder):
            self.removed[first : first + len(facts)] = facts["reason"]
        # (M,) the documents that are near to others, ascending; the first of each one's set; and
        # (M, 2) the digest by which the set is called
        self._members = np.zeros(0, np.int64)
        self._firsts = np.zeros(0, np.int64)
        self._labels = np.zeros((0, 2), np.uint64)
        if settings.drop_exact_duplicates:
            self._remove_copies()
        if settings.near_duplicates != "keep":
            self._find_sets()
        if not settings.drop_exact_duplicates:
            self._remove_copies_of_held_out()

    def remove(self, documents: NDArray[np.int64], reason: str) -> None:
        """Remove documents that were kept so far."""
        self.removed[documents] = REASONS.index(reason)

    def remove_near_held_out(self) -> None:
        """Remove the near-duplicates of documents named for the test or for validation: from
        training, and from validation those of the test."""
        sides = self._sides_of(self._members)
        sides[self.removed[self._members] > 0] = 0
        # of a set's sides the highest: that of the test
        groups, which = np.unique(self._firsts, return_inverse=True)
        highest = np.zeros(len(groups), np.uint8)
        np.maximum.at(highest, which, sides)
        for split in ("validation", "test"):
            near = (sides > 0) & (sides < highest[which]) & (highest[which] == SIDES[split])
            self.remove(self._members[near], f"near_duplicate_of_{split}")

    def groups(self) -> Iterator[tuple[int, list[str]]]:
        """Yield what each document is drawn by, 32 hexadecimal digits, in order and in parts, each
        with the number of its first: the digest of its text, or the smallest of those that are near
        to it, so that it does not depend on the order of files."""
        for first, facts in read_facts(self._folder):
            digests = facts["digest"].copy()
            begin, end = np.searchsorted(self._members, (first, first + len(facts)))
            digests[self._members[begin:end] - first] = self._labels[begin:end]
            text = digests.astype(">u8").tobytes().hex()
            starts = range(0, len(text), _DIGEST_CHARACTERS)
            yield first, [text[start : start + _DIGEST_CHARACTERS] for start in starts]

    def examples(self, known: CleaningReport) -> dict[int, str]:
        """Return the first documents removed for each reason that has no examples yet, and the
        reason."""
        found: dict[int, str] = {}
        for number, reason in enumerate(REASONS):
            if reason and reason not in known.examples:
                places = np.flatnonzero(self.removed == number)[:EXAMPLES_A_REASON]
                found |= dict.fromkeys(places.tolist(), reason)
        return dict(sorted(found.items()))

    def count(self, report: CleaningReport) -> None:
        """Write into a report how many documents there are, and what becomes of them."""
        for first, facts in read_facts(self._folder):
            kept = self.removed[first : first + len(facts)] == 0
            report.documents += len(facts)
            report.characters += int(facts["characters_read"].sum())
            report.kept += int(kept.sum())
            report.kept_characters += int(facts["characters"][kept].sum())
            report.changed += int(facts["changed"][kept].sum())
        counts = np.bincount(self.removed, minlength=len(REASONS)).tolist()
        report.removed = {
            reason: count for reason, count in zip(REASONS, counts, strict=True) if reason and count
        }
        # in one order, whoever met the examples first: one process or a part
        report.examples = dict(sorted(report.examples.items()))
        report.near_duplicate_groups = len(np.unique(self._firsts))
        report.near_duplicates_grouped = len(self._members)

    # ----------------------------------------------------------------------------------- duplicates
    def _copies(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield kept documents of which there are earlier ones with the same text, and the first of
        these."""

        def digests() -> Iterator[Rows]:
            for first, facts in read_facts(self._folder):
                own = np.flatnonzero(self.removed[first : first + len(facts)] == 0)
                numbers = (own + first).astype(np.uint64)
                yield np.column_stack((facts["digest"][own], numbers))

        for rows in sort_by_key(digests(), len(self.removed), self._folder):
            starts, sizes = split_equal(rows, 2)
            documents = rows[:, 2].astype(np.int64)
            firsts = np.repeat(documents[starts], sizes - 1)
            # of every group all but its first row
            later = np.arange(sizes.sum() - len(sizes)) + np.repeat(
                starts + 1 - (np.cumsum(sizes - 1) - (sizes - 1)), sizes - 1
            )
            yield documents[later], firsts

    def _remove_copies(self) -> None:
        # noted first: what is yielded depends on what is kept
        found = [later for later, _ in self._copies()]
        for later in found:
            self.remove(later, "exact_duplicate")

    def _remove_copies_of_held_out(self) -> None:
        """Remove what is named for training and held out as well, where copies are kept."""
        for later, firsts in list(self._copies()):
            sides = self._sides_of(later)
            owners = self._sides_of(firsts)
            # documents come in the order test, validation, train: the first is held out, if any is
            for split in ("validation", "test"):
                taken = (owners == SIDES[split]) & (sides != owners)
                self.remove(later[taken], f"same_as_{split}")

    def _find_sets(self) -> None:
        threshold = self._settings.near_duplicate_threshold
        path = self._folder / "signatures.bin"
        sets = find_near_duplicates(path, self.removed == 0, threshold, self._folder)
        members, firsts = sets.members()
        if self._settings.near_duplicates == "drop":
            kept = first_of_near_duplicates(path, members, firsts, threshold)
            self.remove(np.setdiff1d(members, kept), "near_duplicate")
            return
        self._members = members
        self._firsts = firsts
        digests = self._pick(members, "digest")
        # Named by its smallest digest, not by its first document: then the side of the split that
        # it falls on does not depend on the order of the files.
        order = np.lexsort((digests[:, 1], digests[:, 0], firsts))
        begins = np.flatnonzero(np.diff(firsts[order], prepend=-1))
        sizes = np.diff(np.append(begins, len(order)))
        self._labels = np.empty_like(digests)
        self._labels[order] = np.repeat(digests[order[begins]], sizes, axis=0)

    def _sides_of(self, documents: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.asarray(self._pick(documents, "side"), np.uint8)

    def _pick(self, documents: NDArray[np.int64], name: str) -> NDArray[np.uint64]:
        """Return one fact of documents in any order."""
        order = np.argsort(documents, kind="stable")
        sorted_documents = documents[order]
        kind = FACTS[name]
        found = np.empty((len(documents), *kind.shape), kind.base)
        for first, facts in read_facts(self._folder):
            begin, end = np.searchsorted(sorted_documents, (first, first + len(facts)))
            found[order[begin:end]] = facts[name][sorted_documents[begin:end] - first]
        return found
