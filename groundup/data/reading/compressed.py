"""One file as a stream of bytes: decompressed, and refused where it is no text."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import shlex
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError, MissingExtraError

__all__ = ["COMPRESSIONS", "DataFile", "encoding_of", "open_bytes", "open_file"]

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
# How files begin that people name by mistake, or with the wrong suffix.
_MAGIC = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive (or a Word or Excel file)",
    b"\x1f\x8b": "compressed with gzip",
    b"\xfd7zXZ": "compressed with xz",
    b"BZh": "compressed with bzip2",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard",
    b"PAR1": "a Parquet file",
    b"\x7fELF": "a program",
}
_POINTER = b"version https://git-lfs.github.com/spec/"
# marks that say which encoding a text is in
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_WIDE = ("utf-16", "utf-32")  # encodings in which letters have zero bytes
_MULTIBYTE = re.compile(rb"[\xc2-\xf4][\x80-\xbf]+")
_CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # but for the zero byte
# as git looks for binary files
_SNIFF_BYTES = 8192


@dataclass(frozen=True)
class DataFile:
    """A file to read.

    Attributes:
        relative: Its name below the path given, with slashes.
        kind: Such as ``.jsonl``, whatever its suffix is.
        compression: Such as ``.gz``, or an empty text.
        encoding: What the recipe says that its text is in, if it has no mark; None: UTF-8.
        notes: How often what was met when it was read last.
    """

    path: Path
    relative: str
    kind: str
    compression: str
    encoding: str | None = None
    notes: Counter[str] = field(default_factory=Counter, compare=False)


@contextmanager
def open_file(file: DataFile) -> Iterator[io.BufferedReader]:
    """Open a file through its decompressor, refuse what is binary, and put failures of either into
    words."""
    damage: tuple[type[Exception], ...] = (EOFError, zlib.error, lzma.LZMAError, OSError)
    # the optional library's own error is known only once it is imported
    if file.compression == ".zst":
        damage = (*damage, _import_zstandard().ZstdError)
    try:
        with open_bytes(file) as handle:
            _refuse_binary(file, handle)
            yield handle
    except damage as error:
        reason = "cannot be read"
        if file.compression:
            reason += f" as {file.compression}"
        raise DataError(
            str(file.path), f"{reason}: {error}", "Check the file, or fetch it again"
        ) from error


def open_bytes(file: DataFile) -> io.BufferedReader:
    """Open a file through its decompressor."""
    raw: Any
    match file.compression:
        case ".gz":
            raw = gzip.GzipFile(file.path)
        case ".bz2":
            raw = bz2.BZ2File(file.path)
        case ".xz":
            raw = lzma.LZMAFile(file.path)  # noqa: SIM115  (closed by BufferedReader)
        case ".zst":
            raw = (
                _import_zstandard()
                .ZstdDecompressor()
                .stream_reader(file.path.open("rb"), read_across_frames=True, closefd=True)
            )
        case _:
            # unbuffered, because the reader around it has the buffer
            raw = file.path.open("rb", buffering=0)
    return io.BufferedReader(raw, 1 << 17)


def _import_zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError("zstandard", "data") from None
    return zstandard


def _refuse_binary(file: DataFile, handle: io.BufferedReader) -> None:
    # peeked at, so that the reader begins at the first byte all the same
    head = handle.peek(_SNIFF_BYTES)[:_SNIFF_BYTES]
    encoding = encoding_of(file, handle).lower().replace("_", "-")
    if encoding.startswith(_WIDE):
        return
    if head.startswith(_POINTER):
        raise DataError(
            str(file.path),
            "this is git-lfs's pointer to a file, not the file",
            "Fetch it: git lfs pull",
        )
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(
                str(file.path),
                f"this is {name}, not text",
                "Convert it, or give it its right suffix",
            )
    # no text in UTF-8 has a zero byte, and nearly every binary file has one near its start
    zero = head.find(b"\0")
    if zero < 0:
        return
    problem = f"this is a binary file (a zero byte at byte {zero}), not text"
    remedy = "Give a text file"
    if not _CONTROL.search(head):
        old = shlex.quote(str(file.path))
        new = shlex.quote(str(file.path.with_name(f"clean-{file.path.name}")))
        remedy += f"; if it is a text but for them, take them out: tr -d '\\000' < {old} > {new}"
    # every second byte of most letters, where the mark is missing
    for name, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if zeros.count(b"\0") > len(head) // 3:
            problem = f"this looks like {name} without its mark, not UTF-8"
            remedy = f"Set data.encoding: {name}"
    raise DataError(str(file.path), problem, remedy)


def encoding_of(file: DataFile, handle: io.BufferedReader) -> str:
    """Return the encoding of a file by its mark, or the recipe's, or UTF-8.

    UTF-8 that shows itself is read as such whatever the recipe says: in another encoding it would
    become other letters without any error.
    """
    head = handle.peek(_SNIFF_BYTES)[:_SNIFF_BYTES]
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    if file.encoding is None or _is_plainly_utf8(head):
        return "utf-8"
    return file.encoding


def _is_plainly_utf8(head: bytes) -> bool:
    if len(_MULTIBYTE.findall(head)) < 2:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
