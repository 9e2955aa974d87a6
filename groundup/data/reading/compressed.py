"""One file as a stream of decoded lines: decompressed, refused where it is binary, with the byte of
bad UTF-8 named."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError, MissingExtraError

__all__ = ["DataFile", "decode_lines", "open_file"]

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
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
# as git looks for binary files
_SNIFF_BYTES = 8192


@dataclass(frozen=True)
class DataFile:
    """A file to read: ``relative`` to the path given, ``kind`` such as ``.jsonl``, ``compression``
    or ``""``."""

    path: Path
    relative: str
    kind: str
    compression: str


@contextmanager
def open_file(file: DataFile) -> Iterator[io.BufferedReader]:
    """Open a file through its decompressor, refuse what is binary, and put failures of either into
    words."""
    damage: tuple[type[Exception], ...] = (EOFError, zlib.error, lzma.LZMAError, OSError)
    # the optional library's own error is known only once it is imported
    if file.compression == ".zst":
        damage = (*damage, _import_zstandard().ZstdError)
    try:
        with _open_bytes(file) as handle:
            _refuse_binary(file, handle)
            yield handle
    except damage as error:
        reason = "cannot be read"
        if file.compression:
            reason += f" as {file.compression}"
        raise DataError(
            str(file.path), f"{reason}: {error}", "Check the file, or fetch it again"
        ) from error


def _open_bytes(file: DataFile) -> io.BufferedReader:
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
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(
                str(file.path),
                f"this is {name}, not text in UTF-8",
                "Convert it, or give it its right suffix",
            )
    # no text in UTF-8 has a zero byte, and nearly every binary file has one near its start
    zero = head.find(b"\0")
    if zero >= 0:
        raise DataError(
            str(file.path),
            f"this is a binary file (a zero byte at byte {zero}), not text in UTF-8",
            "Give a text file",
        )


def decode_lines(file: DataFile, handle: io.BufferedReader) -> Iterator[str]:
    """Yield decoded lines with their ends; a byte-order mark at the start is dropped."""
    offset = 0
    for raw in handle:
        # line by line, and not through a text wrapper, to say at which byte of the file it fails
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            at = offset + error.start
            raise DataError(
                str(file.path),
                f"byte {at} (0x{raw[error.start]:02x}) is not UTF-8: {error.reason}",
                f"Convert the file, for example: iconv -f latin1 -t utf-8 {file.path.name}",
            ) from None
        if offset == 0:  # Excel and Notepad put a byte-order mark before UTF-8
            line = line.removeprefix("\ufeff")
        yield line
        # of bytes, where the message needs it; characters would say another place
        offset += len(raw)
