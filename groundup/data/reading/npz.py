"""Arrays by name out of .npz files, never through pickle."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import DataError, did_you_mean

__all__ = ["array_names", "read_arrays"]

_ZIP = b"PK\x03\x04"
_NPY = b"\x93NUMPY"
# What numpy and zipfile raise for archives that were cut off or altered, found by altering some.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    KeyError,
)


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in a file.

    Raises:
        DataError: If it is missing or no .npz.
    """
    with _open_npz(path) as arrays:
        return list(arrays.files)


def read_arrays(path: Path, keys: Sequence[str], remedy: str) -> list[NDArray[Any]]:
    """Return the arrays called ``keys``.

    Args:
        path: The file.
        keys: Names of arrays.
        remedy: What to do where there is no such array.

    Raises:
        DataError: If the file is missing or damaged, lacks an array, or one of them holds Python
            objects.
    """
    with _open_npz(path) as arrays:
        for key in keys:
            if key not in arrays.files:
                names = ", ".join(arrays.files) or "none"
                raise DataError(
                    str(path),
                    f"there is no array {key!r}; {did_you_mean(key, arrays.files)}arrays: {names}",
                    remedy,
                )
        return [_read_array(arrays, key, path) for key in keys]


@contextmanager
def _open_npz(path: Path) -> Iterator[Any]:
    where = str(path)
    if not path.is_file():
        raise DataError(
            where, "no such file", "Correct the path; it is taken relative to the current folder"
        )
    with path.open("rb") as handle:
        # looked at before numpy does, whose messages for other files speak of pickles
        head = handle.read(len(_NPY))
        handle.seek(0)
        if head == _NPY:
            raise DataError(
                where, "holds one array and no names; allowed: .npz", "Save it with numpy.savez"
            )
        if not head.startswith(_ZIP):
            found = "is no .npz" if head else "is empty (0 bytes)"
            raise DataError(
                where,
                f"{found}; allowed: what numpy.savez writes",
                "Check the file, or save it again",
            )
        try:
            # a pickle runs code when it is opened: arrays of objects are refused instead
            with np.load(handle, allow_pickle=False) as arrays:
                yield arrays
        except _DAMAGE as error:
            raise DataError(
                where,
                f"cannot be read as .npz: {str(error).rstrip('. ')}",
                "Check the file, or save it again",
            ) from None


def _read_array(arrays: Any, key: str, path: Path) -> NDArray[Any]:
    try:
        found = arrays[key]
    except ValueError as error:
        # numpy has no error of its own for this: only the words tell
        if "Object arrays" not in str(error):
            raise
        problem = (
            f"array {key!r} holds Python objects, as ragged or mixed rows are saved, which only"
            " pickle can read"
        )
        raise DataError(
            str(path),
            f"{problem}; allowed: plain arrays",
            "Save numbers or text of one type; of sequences numpy.concatenate(sequences) and their"
            " lengths",
        ) from None
    if not isinstance(found, np.ndarray):
        raise DataError(
            str(path),
            f"{key!r} is no array; allowed: what numpy.savez writes",
            "Save the file again",
        )
    return found
