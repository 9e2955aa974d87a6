"""Writing GGUF files, one tensor in memory at a time."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.core.storage import Storage
from groundup.formats.gguf import ALIGNMENT, ARRAY, BOOL, DTYPES, MAGIC, STRING, VERSION
from groundup.formats.gguf_blocks import KINDS, WRITABLE, Kind, quantise

__all__ = ["write_gguf"]

_TYPES = {np.dtype(code): number for number, code in DTYPES.items()}
_LARGEST = float(np.finfo(np.float32).max)
_MIXED = "Give one kind of value"


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
            other numbers as float32; a NumPy number or array keeps its own type.
        tensors: By name, with up to four dimensions.
        kinds: How to store each tensor: F32, F16, BF16, Q8_0 or Q4_0.
        storage: The file system, or one that fails on purpose.

    Raises:
        CheckpointError: If a value or a tensor cannot be stored as asked, or the disk is full.
    """
    storage = storage or Storage()
    alignment = int(metadata.get("general.alignment", ALIGNMENT))
    if alignment < 8 or alignment & (alignment - 1):
        problem = f"general.alignment is {alignment}; it must be a power of two from 8 on"
        raise CheckpointError(str(path), problem, f"Leave it out: it is {ALIGNMENT} then")
    rows = {name: _row(path, name, tensor, kinds[name]) for name, tensor in tensors.items()}
    try:
        storage.write_parts(path, _parts(path, metadata, tensors, rows, alignment))
    except OSError as error:
        raise CheckpointError(
            str(path),
            f"could not be written: {error.strerror or error}",
            "Free some space and try again",
        ) from error


def _row(path: Path, name: str, tensor: Tensor, kind: str) -> Kind:
    if kind not in WRITABLE:
        problem = f"tensor {name!r} cannot be stored as {kind!r}; allowed: {', '.join(WRITABLE)}"
        raise CheckpointError(str(path), problem, "Choose one of these")
    shape, block = list(tensor.shape), KINDS[kind].values
    possible = 1 <= tensor.ndim <= 4 and tensor.numel() > 0
    if not possible or shape[-1] % block:
        problem = (
            f"tensor {name!r} has shape {shape}; {kind} needs 1 to 4 dimensions, the last a"
            f" multiple of {block}"
        )
        raise CheckpointError(
            str(path), problem, "Store it as F16" if possible else "Give it another shape"
        )
    return KINDS[kind]


def _parts(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    rows: Mapping[str, Kind],
    alignment: int,
) -> Iterator[bytes]:
    """Yield the head, then each tensor, each filled up to a multiple of the alignment."""
    head = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for name, value in metadata.items():
        number, content = _pair(path, name, value)
        head += [_text(name), struct.pack("<I", number), content]
    offset = 0
    for name, tensor in tensors.items():
        shape, kind = tuple(tensor.shape), rows[name]
        head.append(_text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1]))
        head.append(struct.pack("<IQ", kind.number, offset))
        offset += _filled(math.prod(shape) // kind.values * kind.size, alignment)
    yield _fill(b"".join(head), alignment)
    for name, tensor in tensors.items():
        try:
            stored = quantise(tensor.detach().cpu().float().numpy(), rows[name])
        except ValueError as error:
            problem = f"tensor {name!r} {error} and cannot be stored as {rows[name].name}"
            raise CheckpointError(
                str(path), problem, "Store it as BF16 or F32, or look where such numbers come from"
            ) from None
        yield _fill(stored.tobytes(), alignment)


def _pair(path: Path, name: str, value: Any) -> tuple[int, bytes]:
    """Return a value's type and its bytes."""
    if isinstance(value, np.ndarray) or (
        isinstance(value, Sequence) and not isinstance(value, str)
    ):
        number, items = _list(path, name, value)
        return ARRAY, struct.pack("<IQ", number, len(value)) + items
    if isinstance(value, str):
        return STRING, _text(value)
    if isinstance(value, bool | np.bool_):
        return BOOL, struct.pack("<?", bool(value))
    return _number(path, name, value)


def _number(path: Path, name: str, value: Any) -> tuple[int, bytes]:
    if isinstance(value, np.generic) and value.dtype in _TYPES:
        return _TYPES[value.dtype], value.tobytes()
    if isinstance(value, float) and (not math.isfinite(value) or abs(value) <= _LARGEST):
        return 6, struct.pack("<f", value)
    for number, code in ((4, "<I"), (5, "<i"), (11, "<q"), (10, "<Q")):
        low, high = int(np.iinfo(DTYPES[number]).min), int(np.iinfo(DTYPES[number]).max)
        if isinstance(value, int) and low <= value <= high:
            return number, struct.pack(code, value)
    problem = (
        f"metadata {name!r} is {str(value)[:60]!r} ({type(value).__name__}), which GGUF cannot hold"
    )
    raise CheckpointError(str(path), problem, "Give a boolean, a number, a text or a list of these")


def _list(path: Path, name: str, values: Any) -> tuple[int, bytes]:
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype in _TYPES:
        return _TYPES[values.dtype], values.tobytes()
    kinds = {type(value) for value in values}
    if kinds <= {str}:
        return STRING, b"".join(map(_text, values))
    if kinds == {bool}:
        return BOOL, bytes(values)
    if kinds == {int} and all(-(2**31) <= value < 2**31 for value in values):
        return 5, np.array(values, "<i4").tobytes()
    if kinds == {float}:
        return 6, np.array(values, "<f4").tobytes()
    found = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise CheckpointError(
        str(path), f"metadata {name!r} is a list of {found}, which GGUF cannot hold", _MIXED
    )


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _filled(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _fill(content: bytes, alignment: int) -> bytes:
    return content + bytes(_filled(len(content), alignment) - len(content))
