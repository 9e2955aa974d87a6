"""Writing GGUF files with the library ``gguf``: its layout and its rounding, one tensor in memory
at a time.

The library's writer keeps its files open under their final names and its tensors in memory, so only
the head is taken from it; the tensors follow one by one, into a file that gets its name when it is
whole.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from groundup.core.errors import CheckpointError, MissingExtraError
from groundup.core.storage import Storage
from groundup.formats.gguf import ALIGNMENT, ARRAY, BOOL, DTYPES, STRING
from groundup.formats.gguf_blocks import CHUNK, KINDS, Kind

__all__ = ["WRITABLE", "quantize", "require_gguf", "write_gguf"]

WRITABLE = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
_FLOAT = 6
# 32 bits
_INT = 5
# the first that fits: uint32, int32, int64, uint64
_INTEGERS = (4, _INT, 11, 10)
_TYPES = {np.dtype(code): number for number, code in DTYPES.items()}
_LARGEST = float(np.finfo(np.float32).max)
# The inverse of a scale below this is infinite, where the library gives numbers that mean nothing.
_LEAST = 1e-36


def require_gguf() -> Any:
    """Return the library.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise MissingExtraError("gguf", "gguf") from None
    return gguf


def quantize(numbers: NDArray[np.float32], kind: Kind) -> NDArray[np.uint8]:
    """Return numbers as bytes of a kind, rounded as llama.cpp rounds them.

    Args:
        numbers: Any shape; the last dimension is a multiple of ``kind.values``.
        kind: One of ``WRITABLE``.

    Raises:
        ValueError: If a number is not finite, or too large for this kind.
        MissingExtraError: If ``gguf`` is not installed.
    """
    library = require_gguf()
    # a NaN would become a number, and an infinite one the scale of its whole block
    if not np.isfinite(numbers).all():
        raise ValueError("holds numbers that are not finite")
    blocks = np.ascontiguousarray(numbers, dtype=np.float32).reshape(-1, kind.values)
    stored = np.empty((len(blocks), kind.size), dtype=np.uint8)
    step = CHUNK // kind.values
    type_ = library.GGMLQuantizationType[kind.name]
    for start in range(0, len(blocks), step):
        some = blocks[start : start + step]
        if kind.name.startswith("Q"):
            some = np.where(np.abs(some).max(axis=1, keepdims=True) < _LEAST, 0, some)
        with np.errstate(all="ignore"):
            rounded = library.quantize(some, type_)
        stored[start : start + step] = rounded.view(np.uint8)
    _check_range(stored, kind)
    return stored.reshape(-1)


def _check_range(stored: NDArray[np.uint8], kind: Kind) -> None:
    """Raise an error where a number, or the scale of a block, has become infinite."""
    if kind.name == "BF16":
        if ((stored.view("<u2") & 0x7F80) == 0x7F80).any():
            raise ValueError("holds numbers beyond what BF16 can hold")
    elif kind.name != "F32":
        # F16, and scales of 16 bits at the beginning of blocks
        halves = np.ascontiguousarray(stored[:, :2]).view("<f2")
        if not np.isfinite(halves).all():
            raise ValueError("holds numbers beyond 65504, the largest in 16 bits")


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    kinds: Mapping[str, str],
    storage: Storage | None = None,
) -> None:
    """Write a GGUF file in one step: readers find the old file, or the new one whole.

    Args:
        path: Where to; the folder exists.
        metadata: Booleans, numbers, texts, and lists of one of these. An integer is stored as
            uint32 where it fits, else int32, int64 or uint64, integers in a list as int32, and
            other numbers as float32; a NumPy number or array keeps its own type. An empty list is
            left out.
        tensors: By name, with up to four dimensions.
        kinds: How to store each tensor: F32, F16, BF16, Q8_0 or Q4_0.
        storage: The file system, or one that fails on purpose.

    Raises:
        CheckpointError: If a value or a tensor cannot be stored as asked, or the disk is full.
        MissingExtraError: If ``gguf`` is not installed.
    """
    storage = storage or Storage()
    alignment = int(metadata.get("general.alignment", ALIGNMENT))
    if alignment < 8 or alignment & (alignment - 1):
        raise CheckpointError(
            str(path),
            f"general.alignment is {alignment}, but it must be a power of two from 8 on",
            f"Leave it out: it is {ALIGNMENT} then",
        )
    rows = {name: _choose_kind(path, name, tensor, kinds[name]) for name, tensor in tensors.items()}
    head = _make_head(path, metadata, tensors, rows, alignment)
    try:
        storage.write_parts(path, _yield_parts(path, head, tensors, rows, alignment))
    except OSError as error:
        raise CheckpointError(
            str(path),
            f"could not be written: {error.strerror or error}",
            "Free some space and try again",
        ) from error


def _choose_kind(path: Path, name: str, tensor: Tensor, kind: str) -> Kind:
    if kind not in WRITABLE:
        raise CheckpointError(
            str(path),
            f"tensor {name!r} cannot be stored as {kind!r}; allowed: {', '.join(WRITABLE)}",
            "Choose one of these",
        )
    block = KINDS[kind].values
    possible = 1 <= tensor.ndim <= 4 and tensor.numel() > 0
    if possible and tensor.shape[-1] % block == 0:
        return KINDS[kind]
    problem = (
        f"tensor {name!r} has shape {list(tensor.shape)}, but {kind} needs 1 to 4 dimensions, the"
        f" last a multiple of {block}"
    )
    remedy = "Store it as F16" if possible else "Give it another shape"
    raise CheckpointError(str(path), problem, remedy)


def _make_head(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    rows: Mapping[str, Kind],
    alignment: int,
) -> bytes:
    """Return the metadata and the table of tensors as they are in the file."""
    library = require_gguf()
    writer = library.GGUFWriter(None, "")
    # an architecture; a file of ours has it in its place, or has none
    writer.kv_data[0].clear()
    writer.data_alignment = alignment
    for name, value in metadata.items():
        number, items, plain = _describe_value(path, name, value)
        if number != ARRAY or plain:
            sub_type = None if items is None else library.GGUFValueType(items)
            writer.add_key_value(name, plain, library.GGUFValueType(number), sub_type)
    for name, tensor in tensors.items():
        kind = rows[name]
        size = tensor.numel() // kind.values * kind.size
        type_ = library.GGMLQuantizationType[kind.name]
        writer.add_tensor_info(name, tuple(tensor.shape), np.dtype(np.float32), size, type_)
    head = io.BytesIO()
    # as if the writer had opened a file by itself
    writer.fout = [head]
    writer.state = library.gguf_writer.WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return head.getvalue()


def _yield_parts(
    path: Path,
    head: bytes,
    tensors: Mapping[str, Tensor],
    rows: Mapping[str, Kind],
    alignment: int,
) -> Iterator[bytes]:
    """Yield the head, then each tensor, each filled up to a multiple of the alignment."""
    yield _fill(head, alignment)
    for name, tensor in tensors.items():
        # only here, so that one tensor at a time is in memory in float32
        try:
            stored = quantize(tensor.detach().cpu().float().numpy(), rows[name])
        except ValueError as error:
            raise CheckpointError(
                str(path),
                f"tensor {name!r} {error} and cannot be stored as {rows[name].name}",
                "Store it as BF16 or F32, or look where such numbers come from",
            ) from None
        yield _fill(stored.tobytes(), alignment)


def _fill(content: bytes, alignment: int) -> bytes:
    return content + bytes(-len(content) % alignment)


def _describe_value(path: Path, name: str, value: Any) -> tuple[int, int | None, Any]:
    """Return the number of a value's type, of a list that of its items too, and the value without
    NumPy's types."""
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype in _TYPES:
        return ARRAY, _TYPES[value.dtype], value.tolist()
    if isinstance(value, str):
        return STRING, None, value
    # before numbers: a bool is an int
    if isinstance(value, bool | np.bool_):
        return BOOL, None, bool(value)
    if isinstance(value, np.ndarray | Sequence):
        return ARRAY, _type_of_items(path, name, value), list(value)
    if isinstance(value, np.generic) and value.dtype in _TYPES:
        return _TYPES[value.dtype], None, value.item()
    if isinstance(value, float) and (not math.isfinite(value) or abs(value) <= _LARGEST):
        return _FLOAT, None, value
    for number in _INTEGERS:
        limits = np.iinfo(DTYPES[number])
        if isinstance(value, int) and limits.min <= value <= limits.max:
            return number, None, value
    raise CheckpointError(
        str(path),
        f"metadata {name!r} is {str(value)[:60]!r} ({type(value).__name__}), which GGUF cannot"
        " hold",
        "Give a boolean, a number, a text or a list of these",
    )


def _type_of_items(path: Path, name: str, values: Any) -> int:
    kinds = {type(value) for value in values}
    if kinds <= {str}:
        return STRING
    if kinds == {bool}:
        return BOOL
    if kinds == {int} and all(-(2**31) <= value < 2**31 for value in values):
        return _INT
    if kinds == {float}:
        return _FLOAT
    found = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise CheckpointError(
        str(path),
        f"metadata {name!r} is a list of {found}, which GGUF cannot hold",
        "Give one kind of value",
    )
