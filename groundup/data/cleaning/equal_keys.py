"""Finding rows with equal keys among more rows than memory holds: they are divided by their keys
into files, each of which is sorted by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rows", "sort_by_key", "split_equal"]

Rows = NDArray[np.uint64]  # (N, columns): the key comes first, the number of the document last
# 6 MB of three columns, and three times as much again to sort them
_ROWS_AT_ONCE = 1 << 18
# open files at once; most systems allow 1,024
_MOST_FILES = 512


def sort_by_key(blocks: Iterable[Rows], rows: int, folder: Path) -> Iterator[Rows]:
    """Yield rows sorted by all of their columns, so cut that equal keys are in one array.

    Args:
        blocks: The rows, in any number of arrays. The first column is a hash: evenly spread.
        rows: How many there are at most.
        folder: Where files may be kept meanwhile.
    """
    files = min(-(-rows // _ROWS_AT_ONCE), _MOST_FILES)
    if files <= 1:
        found = [block for block in blocks if len(block)]
        if found:
            yield _sort(np.concatenate(found))
        return
    paths = [folder / f"keys-{number:03}.bin" for number in range(files)]
    width = _divide(blocks, paths)
    for path in paths:
        part = np.fromfile(path, np.uint64).reshape(-1, width)
        path.unlink()
        if len(part):
            yield _sort(part)


def split_equal(rows: Rows, columns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (groups,) where each group of two or more rows with equal first ``columns`` begins,
    and (groups,) how many it has."""
    differs = np.any(rows[1:, :columns] != rows[:-1, :columns], axis=1)
    starts = np.concatenate(([0], np.flatnonzero(differs) + 1)).astype(np.int64)
    sizes = np.diff(np.append(starts, len(rows)))
    several = sizes > 1
    return starts[several], sizes[several]


def _divide(blocks: Iterable[Rows], paths: list[Path]) -> int:
    """Write each row to the file that its key belongs to; return how many columns they have."""
    width = 1
    handles = [path.open("wb") for path in paths]
    try:
        for block in blocks:
            width = block.shape[1]
            # the top 32 bits times the number of files: no overflow, and as even as the keys
            which = (block[:, 0] >> np.uint64(32)) * np.uint64(len(paths)) >> np.uint64(32)
            order = np.argsort(which, kind="stable")
            edges = np.searchsorted(which[order], np.arange(len(paths) + 1))
            ordered = block[order]
            for number, handle in enumerate(handles):
                part = ordered[edges[number] : edges[number + 1]]
                if len(part):
                    handle.write(np.ascontiguousarray(part).data)
    finally:
        for handle in handles:
            handle.close()
    return width


def _sort(rows: Rows) -> Rows:
    # lexsort takes the most important column last
    return rows[np.lexsort(rows.T[::-1])]
