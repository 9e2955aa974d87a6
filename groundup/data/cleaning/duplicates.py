"""Near-duplicates by MinHash: two documents are near when the Jaccard index of their 5-word runs
reaches a threshold.

Signatures are on disk. Documents that agree in a band of their signatures are candidates, found by
sorting; whole signatures decide. Of each document four bytes are in memory.

Source: Broder, "On the resemblance and containment of documents", 1997; Lee et al., "Deduplicating
    training data makes language models better", 2021, arXiv 2107.06499, appendix A (5-grams,
    verified candidates). Departs from the paper: candidates are verified by their signatures, not
    by edit distance.

Legend: D documents, P numbers of a signature.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.data.cleaning.equal_keys import Rows, sort_by_key, split_equal
from groundup.data.cleaning.minhash import PERMUTATIONS, band_hashes, choose_bands

__all__ = ["DocumentSets", "find_near_duplicates", "first_of_near_duplicates"]

_DOCUMENTS_AT_ONCE = 1 << 13  # 2 MB of signatures
_COMPARED_AT_ONCE = 1 << 16
_PAGES_AT_ONCE = 128
Signatures = NDArray[np.uint32]


class DocumentSets:
    """Disjoint sets of documents, each called by its smallest number, in four bytes a document.

    Args:
        count: How many documents there are.

    Source: Galler and Fischer, 1964, with path halving (Tarjan and van Leeuwen, 1984).
    """

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)

    def find(self, document: int) -> int:
        """Return the smallest document of a document's set."""
        parent = self._parent
        while (above := int(parent[document])) != document:
            # halving the path on the way up keeps later searches short, without a second pass
            parent[document] = parent[above]
            document = above
        return document

    def find_all(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the smallest document of each one's set."""
        roots = self._parent[documents]
        while not np.array_equal(above := self._parent[roots], roots):
            roots = above
        return roots.astype(np.int64)

    def join(self, one: int, other: int) -> None:
        """Make one set of the sets of two documents."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low

    def firsts(self) -> NDArray[np.bool_]:
        """Return (D,) whether each document is the smallest of its set."""
        found = np.empty(len(self._parent), np.bool_)
        # in parts, or the numbers they are compared with would double the memory
        for begin in range(0, len(found), _COMPARED_AT_ONCE):
            part = self._parent[begin : begin + _COMPARED_AT_ONCE]
            found[begin : begin + len(part)] = part == np.arange(begin, begin + len(part))
        return found

    def members(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the documents of all sets of two and more, ascending, and the smallest of each
        one's set."""
        later = np.flatnonzero(~self.firsts())
        firsts = np.unique(self.find_all(later))
        documents = np.union1d(later, firsts).astype(np.int64)
        return documents, self.find_all(documents)


class _SignatureFile:
    """(D, P) signatures on disk. What was read leaves no page in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self.count = path.stat().st_size // (4 * PERMUTATIONS)
        self._map: mmap.mmap | None = None

    def __enter__(self) -> _SignatureFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._map is not None:
            self._map.close()
        self._file.close()

    def chunks(self) -> Iterator[tuple[int, Signatures]]:
        """Yield all signatures in order, each array with the number of its first."""
        size = _DOCUMENTS_AT_ONCE * PERMUTATIONS
        for first in range(0, self.count, _DOCUMENTS_AT_ONCE):
            found = np.fromfile(self._path, np.uint32, size, offset=first * 4 * PERMUTATIONS)
            yield first, found.reshape(-1, PERMUTATIONS)

    def read(self, documents: NDArray[np.int64]) -> Signatures:
        """Return (documents, P) those of any documents."""
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        rows = np.frombuffer(self._map, np.uint32).reshape(-1, PERMUTATIONS)
        found = np.empty((len(documents), PERMUTATIONS), np.uint32)
        for begin in range(0, len(documents), _PAGES_AT_ONCE):
            part = slice(begin, begin + _PAGES_AT_ONCE)
            found[part] = rows[documents[part]]
            # Pages of a mapped file count as this process's memory as long as they are mapped, and
            # the system maps 64 KiB around each that is read.
            self._map.madvise(mmap.MADV_DONTNEED)
        return found


def find_near_duplicates(
    path: Path, candidates: NDArray[np.bool_], threshold: float, folder: Path
) -> DocumentSets:
    """Return the documents, those that are near in one set. Chains are one set: where a is near b
    and b is near c, all three are in it.

    Args:
        path: The signatures of all documents.
        candidates: (D,) which documents are compared.
        threshold: The Jaccard index from which two are near.
        folder: Where files may be kept meanwhile.
    """
    sets = DocumentSets(len(candidates))
    if not candidates.any():
        return sets
    with _SignatureFile(path) as signatures:
        # Equal signatures are met far more often than near ones: joined first, one stands for all.
        everything = _banded(signatures, candidates, 0, PERMUTATIONS)
        for rows in sort_by_key(everything, len(candidates), folder):
            _join_alike(rows, signatures, sets, threshold)
        compared = candidates & sets.firsts()
        bands, width = choose_bands(threshold)
        for band in range(bands):
            start = band * width
            blocks = _banded(signatures, compared, start, start + width)
            for rows in sort_by_key(blocks, len(candidates), folder):
                _join_alike(rows, signatures, sets, threshold)
    return sets


def first_of_near_duplicates(
    path: Path, documents: NDArray[np.int64], firsts: NDArray[np.int64], threshold: float
) -> NDArray[np.int64]:
    """Return those documents that are near to no earlier document that is kept itself.

    Args:
        path: The signatures of all documents.
        documents: (M,) the documents in sets, ascending; only within a set may two be near.
        firsts: (M,) the smallest document of each one's set.
        threshold: The Jaccard index from which two are near.
    """
    bands, width = choose_bands(threshold)
    kept: list[int] = []
    order = np.argsort(firsts, kind="stable")
    edges = np.flatnonzero(np.diff(firsts[order])) + 1
    with _SignatureFile(path) as signatures:
        for own in np.split(documents[order], edges):
            stay = np.empty((0, PERMUTATIONS), np.uint32)
            for first in range(0, len(own), _DOCUMENTS_AT_ONCE):
                part = own[first : first + _DOCUMENTS_AT_ONCE]
                for document, signature in zip(part, signatures.read(part), strict=True):
                    equal = stay == signature
                    # as candidates are found: by a whole band that is equal
                    banded = equal[:, : bands * width].reshape(-1, bands, width).all(2).any(1)
                    near = banded & (equal.sum(1) / PERMUTATIONS >= threshold)
                    if not near.any():
                        stay = np.concatenate([stay, signature[None]])
                        kept.append(int(document))
    return np.array(sorted(kept), np.int64)


def _banded(
    signatures: _SignatureFile, chosen: NDArray[np.bool_], start: int, stop: int
) -> Iterator[Rows]:
    """Yield rows of (hash of the numbers ``[start, stop)``, document) of the chosen documents."""
    for first, found in signatures.chunks():
        own = np.flatnonzero(chosen[first : first + len(found)])
        hashes = band_hashes(found[own, start:stop])
        yield np.stack((hashes, (own + first).astype(np.uint64)), axis=1)


def _join_alike(
    rows: Rows, signatures: _SignatureFile, sets: DocumentSets, threshold: float
) -> None:
    """Join what is near among rows of (hash, document), sorted: of equal hashes alone."""
    starts, sizes = split_equal(rows, 1)
    documents = rows[:, 1].astype(np.int64)
    pairs = starts[sizes == 2]
    # most candidates are a single pair, and many pairs are compared in one operation
    for begin in range(0, len(pairs), _DOCUMENTS_AT_ONCE):
        part = pairs[begin : begin + _DOCUMENTS_AT_ONCE]
        one = documents[part]
        other = documents[part + 1]
        apart = sets.find_all(one) != sets.find_all(other)
        one = one[apart]
        other = other[apart]
        near = _agree(signatures.read(one), signatures.read(other), threshold)
        for first, second in zip(one[near].tolist(), other[near].tolist(), strict=True):
            sets.join(first, second)
    large = sizes > 2
    for start, size in zip(starts[large].tolist(), sizes[large].tolist(), strict=True):
        _join_family(documents[start : start + size], signatures, sets, threshold)


def _join_family(
    documents: NDArray[np.int64], signatures: _SignatureFile, sets: DocumentSets, threshold: float
) -> None:
    """Compare each document with all later ones that are not yet in its set."""
    for place, document in enumerate(documents[:-1].tolist()):
        later = documents[place + 1 :]
        others = later[sets.find_all(later) != sets.find(document)]
        # All later ones are in one set with it, and earlier ones were compared: nothing is left to
        # find. Copies of one page, of which there may be thousands, end here at once.
        if not len(others):
            return
        own = signatures.read(documents[place : place + 1])
        for begin in range(0, len(others), _DOCUMENTS_AT_ONCE):
            part = others[begin : begin + _DOCUMENTS_AT_ONCE]
            for other in part[_agree(signatures.read(part), own, threshold)].tolist():
                sets.join(document, other)


def _agree(one: Signatures, other: Signatures, threshold: float) -> NDArray[np.bool_]:
    """Return whether the share of equal numbers of each pair reaches the threshold."""
    return np.asarray((one == other).sum(axis=1) / PERMUTATIONS >= threshold)
