"""Arrays in idx files, as MNIST comes."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import DataError

__all__ = ["mnist_files", "read_idx"]

# the third byte of a file, and the type of its numbers, which are big-endian
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array of a file in idx format, compressed with gzip or not.

    Raises:
        DataError: If the file is missing or damaged.

    Source:
        LeCun, Cortes and Burges, "The MNIST database of handwritten digits": the file format at its
        end.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            str(path), f"cannot be read: {error}", "Check the file, or fetch it again"
        ) from None
    kind = _IDX_TYPES.get(content[2]) if len(content) > 4 and content[:2] == b"\0\0" else None
    if kind is None:
        found = f"it begins with {content[:4].hex(' ')}" if content else "it is empty (0 bytes)"
        raise DataError(
            str(path),
            f"is not an idx file: {found}; allowed: 00 00, the type of the numbers, how many"
            " dimensions",
            "Check the file",
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(
            str(path),
            f"is cut off: its header of {content[3]} dimensions takes {start} bytes, but there are"
            f" {len(content)}",
            "Fetch it again",
        )
    shape = np.frombuffer(content, ">u4", content[3], 4).tolist()
    # checked before reading, because numpy would make an array of what is there
    size = math.prod(shape) * np.dtype(kind).itemsize
    if len(content) - start != size:
        there = len(content) - start
        raise DataError(
            str(path),
            f"its header states {' x '.join(map(str, shape))} numbers, {size:,} bytes, and"
            f" {there:,} bytes follow",
            "Fetch it again",
        )
    values = np.frombuffer(content, kind, offset=start)
    return values.reshape(shape)


def mnist_files(folder: Path, *prefixes: str) -> tuple[str, str]:
    """Return the files of inputs and labels in a folder as MNIST comes: train-images-idx3-ubyte.gz
    and so on."""
    found = []
    for kind in ("images", "labels"):
        names = sorted(p for prefix in prefixes for p in folder.glob(f"{prefix}*{kind}*"))
        if not names:
            there = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
            raise DataError(
                str(folder),
                f"has no file {prefixes[0]}*{kind}*, as MNIST's layout has it; there: {there}",
                "Name the files with path, labels_path, test, test_labels_path",
            )
        found.append(str(names[0]))
    return found[0], found[1]
