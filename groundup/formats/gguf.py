"""GGUF, the file format of llama.cpp: metadata and tensors in one file, read through a memory map.

A file is: the letters GGUF, a version, how many tensors and how many metadata there are, the
metadata (name, type, value), the table of tensors (name, dimensions, kind, offset), and from the
next multiple of the alignment on the tensors themselves. Everything is little-endian. What a file
says is never run, and no count in it is believed before it is known that the file is long enough
for it: the reader of the library ``gguf`` believes them, which is why this one is groundup's own.

Source: docs/gguf.md of github.com/ggml-org/ggml (versions 2 and 3), read for the layout.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import CheckpointError, did_you_mean
from groundup.formats.gguf_blocks import KINDS, OTHER_KINDS, Kind, dequantize

__all__ = [
    "ALIGNMENT",
    "ARRAY",
    "BOOL",
    "DTYPES",
    "MAGIC",
    "STRING",
    "GGUFFile",
    "GGUFTensor",
    "open_gguf",
]

MAGIC = b"GGUF"
# where a file says nothing else
ALIGNMENT = 32
# Types of metadata that are not numbers, by their number.
BOOL = 7
STRING = 8
ARRAY = 9
DTYPES: dict[int, str] = {  # numbers in metadata, by the number of their type
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_VERSIONS = (2, 3)
# deeper, and a small file could exhaust the stack
_NESTING = 4
_DIMENSIONS = 4
_BY_NUMBER = {kind.number: kind for kind in KINDS.values()}
# The least bytes that an entry takes: its length, an empty name and the rest.
_LEAST_PAIR = 13
_LEAST_ROW = 32
_AGAIN = "Download or convert it again"


@dataclass(frozen=True)
class GGUFTensor:
    """A row of the table of tensors. ``shape`` has the slowest dimension first, as NumPy and torch
    have it."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    start: int
    size: int


@dataclass(frozen=True)
class GGUFFile:
    """An open file. Its tensors stay on the disk until they are read.

    Attributes:
        path: Where it is.
        metadata: Numbers, booleans, texts, and lists of these, by name.
        tensors: What the table of tensors says, by name.
        content: The file's bytes, mapped.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]
    content: NDArray[np.uint8]

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a tensor as float32, whatever its kind.

        Raises:
            CheckpointError: If there is no tensor of that name.
        """
        if name not in self.tensors:
            near = did_you_mean(name, self.tensors)
            raise CheckpointError(
                str(self.path), f"has no tensor {name!r}; {near}it has {len(self.tensors)}", _AGAIN
            )
        row = self.tensors[name]
        stored = self.content[row.start : row.start + row.size]
        return dequantize(stored, row.kind).reshape(row.shape)


def open_gguf(path: Path) -> GGUFFile:
    """Return a GGUF file with its metadata and its table of tensors read and checked.

    Raises:
        CheckpointError: If the file cannot be read, is no GGUF file, is damaged or cut off, or
            holds a kind of tensor that is not read here.
    """
    try:
        content: NDArray[np.uint8] = np.zeros(0, np.uint8)
        if path.stat().st_size:
            # nothing cannot be mapped
            content = np.memmap(path, dtype=np.uint8, mode="r")
    except OSError as error:
        raise CheckpointError(
            str(path), f"cannot be read: {error.strerror or error}", "Give a .gguf file"
        ) from None
    cursor = _Cursor(content.data, str(path))
    tensors, pairs = _read_head(cursor)
    metadata = dict(_read_metadata(cursor, pairs))
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        cursor.refuse(
            f"general.alignment is {alignment!r}, but it must be a power of two from 8 on"
        )
    table = list(_read_table(cursor, tensors))
    start = -(-cursor.at // alignment) * alignment
    # offsets count from there, not from the beginning of the file
    rows = [_place(cursor, row, offset, start, alignment) for row, offset in table]
    return GGUFFile(path, metadata, {row.name: row for row in rows}, content)


class _Cursor:
    """A place in the file. It never takes more than there is."""

    def __init__(self, content: memoryview, where: str) -> None:
        self.content = content
        self.where = where
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.content) - self.at

    def refuse(self, problem: str, remedy: str = _AGAIN) -> NoReturn:
        raise CheckpointError(self.where, problem, remedy)

    # Python's whole numbers do not overflow, so that no length can wrap around what is left.
    def need(self, size: int, what: str) -> None:
        """Raise an error unless the file has ``size`` more bytes."""
        if size > self.left:
            self.refuse(
                f"ends within {what}: it needs {size} bytes from byte {self.at} on, but"
                f" {self.left} are left"
            )

    def take(self, size: int, what: str) -> memoryview:
        self.need(size, what)
        self.at += size
        return self.content[self.at - size : self.at]

    def integer(self, code: str, what: str) -> int:
        """Return an integer by its ``struct`` code."""
        (value,) = struct.unpack(code, self.take(struct.calcsize(code), what))
        return int(value)

    def text(self, what: str) -> str:
        """Return a text: its length in bytes, then UTF-8."""
        # a length may be anything in 64 bits: ``take`` compares it before memory is asked for
        raw = bytes(self.take(self.integer("<Q", what), what))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.refuse(f"{what} is not UTF-8")


def _read_head(cursor: _Cursor) -> tuple[int, int]:
    """Return how many tensors and how many metadata follow."""
    first = bytes(cursor.content[:4])
    if first != MAGIC:
        cursor.refuse(
            f"is no GGUF file: it begins with {first!r}, not {MAGIC!r}", "Give a .gguf file"
        )
    cursor.at = 4
    version = cursor.integer("<I", "the header")
    if version not in _VERSIONS:
        found = f"has GGUF version {version}"
        if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
            found = "is big-endian"
        cursor.refuse(
            f"{found}, but only versions 2 and 3, little-endian, are read",
            "Convert it with a newer llama.cpp",
        )
    tensors = cursor.integer("<Q", "the header")
    pairs = cursor.integer("<Q", "the header")
    for count, least, what in (
        (pairs, _LEAST_PAIR, "metadata"),
        (tensors, _LEAST_ROW, "tensors"),
    ):
        if count * least > cursor.left:
            cursor.refuse(f"says it has {count} {what}, but only {cursor.left} bytes follow")
    return tensors, pairs


def _read_metadata(cursor: _Cursor, count: int) -> Iterator[tuple[str, Any]]:
    # a dictionary would silently keep the last of two
    seen: set[str] = set()
    for number in range(count):
        name = cursor.text(f"the name of metadata {number}")
        if name in seen:
            cursor.refuse(f"has metadata {name!r} twice")
        seen.add(name)
        what = f"metadata {name!r}"
        yield name, _read_value(cursor, cursor.integer("<I", what), what, 0)


def _read_value(cursor: _Cursor, kind: int, what: str, depth: int) -> Any:
    if kind == STRING:
        return cursor.text(what)
    if kind == ARRAY:
        return _read_array(cursor, what, depth + 1)
    return _read_numbers(cursor, kind, 1, what)[0]


def _read_array(cursor: _Cursor, what: str, depth: int) -> list[Any]:
    if depth > _NESTING:
        cursor.refuse(f"{what} has arrays within arrays, more than {_NESTING} deep")
    kind = cursor.integer("<I", what)
    count = cursor.integer("<Q", what)
    # the length of a text; type and length of a list
    least = {STRING: 8, ARRAY: 12}.get(kind)
    if least is None:
        return _read_numbers(cursor, kind, count, what)
    cursor.need(count * least, f"{what}, a list of {count}")
    return [_read_value(cursor, kind, what, depth) for _ in range(count)]


def _read_numbers(cursor: _Cursor, kind: int, count: int, what: str) -> list[Any]:
    if kind != BOOL and kind not in DTYPES:
        cursor.refuse(f"{what} has the unknown type {kind}")
    dtype = np.dtype(DTYPES.get(kind, "<u1"))
    values = np.frombuffer(cursor.take(count * dtype.itemsize, what), dtype)
    if kind == BOOL:
        # other programs could take 2 for true or for false
        if (values > 1).any():
            cursor.refuse(f"{what} has a boolean that is neither 0 nor 1")
        values = values.astype(np.bool_)
    return list(values.tolist())


def _read_table(cursor: _Cursor, count: int) -> Iterator[tuple[GGUFTensor, int]]:
    """Yield each tensor, its place still open, with its offset from where the tensors begin."""
    seen: set[str] = set()
    for number in range(count):
        name = cursor.text(f"the name of tensor {number}")
        what = f"tensor {name!r}"
        if name in seen:
            cursor.refuse(f"has {what} twice")
        seen.add(name)
        dimensions = cursor.integer("<I", what)
        if not 1 <= dimensions <= _DIMENSIONS:
            cursor.refuse(f"{what} has {dimensions} dimensions; allowed: 1 to {_DIMENSIONS}")
        # a file has the fastest dimension first
        shape = tuple(cursor.integer("<Q", what) for _ in range(dimensions))[::-1]
        kind = _find_kind(cursor, cursor.integer("<I", what), what)
        if prod(shape) == 0 or shape[-1] % kind.values:
            cursor.refuse(
                f"{what} has shape {list(shape)}, but {kind.name} comes in blocks of"
                f" {kind.values} of a row"
            )
        size = prod(shape) // kind.values * kind.size
        yield GGUFTensor(name, shape, kind, 0, size), cursor.integer("<Q", what)


def _find_kind(cursor: _Cursor, number: int, what: str) -> Kind:
    if number not in _BY_NUMBER:
        found = OTHER_KINDS.get(number, f"number {number}, which is unknown")
        remedy = f"Convert it to one of these, for example with llama-quantize: {', '.join(KINDS)}"
        cursor.refuse(f"{what} is stored as {found}, which is not read", remedy)
    return _BY_NUMBER[number]


def _place(cursor: _Cursor, row: GGUFTensor, offset: int, start: int, alignment: int) -> GGUFTensor:
    """Return a tensor with its place in the file."""
    if offset % alignment:
        cursor.refuse(
            f"tensor {row.name!r} begins at offset {offset}, which is not a multiple of the"
            f" alignment {alignment}"
        )
    first = start + offset
    if first + row.size > len(cursor.content):
        cursor.refuse(
            f"tensor {row.name!r} is outside of the file: its {row.size} bytes begin at byte"
            f" {first}, but the file has {len(cursor.content)}"
        )
    return replace(row, start=first)
