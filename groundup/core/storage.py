"""Writing files so that a crash, a full disk or a second process never leaves half of one in place
of a whole one.

Everything that writes a run goes through a ``Storage``; tests put one in its place that fails,
tears a write or fills the disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Manifest", "Storage", "sha256_of", "write_files"]

Manifest = dict[str, dict[str, Any]]
"""What files hold, by name: their SHA-256 and their size in bytes."""

_SETTLED_NS = 2_000_000_000
_KNOWN_SHA256: dict[tuple[int, int, int, int], str] = {}


class Storage:
    """The file system.

    Args:
        writes: Whether anything is written: of several processes that do the same, one writes.
    """

    def __init__(self, *, writes: bool = True) -> None:
        self.writes = writes

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Write a file and wait until the disk has it."""
        if not self.writes:
            return
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def write_text(self, path: Path, content: str) -> None:
        """Replace a text file in one step: readers see the old content or the new, never half."""
        if not self.writes:
            return
        # In the same folder, as a rename is one step only within a file system; and with the
        # process's number, so that two writers do not share a file.
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self.write_bytes(temporary, content.encode())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self.sync_folder(path.parent)

    def write_parts(self, path: Path, parts: Iterable[bytes]) -> None:
        """Replace a large file in one step, written part by part."""
        if not self.writes:
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self.sync_folder(path.parent)

    def append_line(self, path: Path, line: str) -> None:
        """Append one line in one write."""
        if not self.writes:
            return
        with path.open("ab") as file:
            file.write(line.encode() + b"\n")

    def rename(self, source: Path, target: Path) -> None:
        """Give a folder its final name and wait until the disk has it."""
        if not self.writes:
            return
        source.rename(target)
        self.sync_folder(target.parent)

    def remove(self, folder: Path) -> None:
        """Delete a folder and all in it."""
        if not self.writes:
            return
        shutil.rmtree(folder, ignore_errors=True)

    def sync_folder(self, folder: Path) -> None:
        """Wait until the disk has the folder's list of names."""
        if not self.writes:
            return
        # A rename is an entry of the folder: without this a crash may take the new name back,
        # although the file's content is safe on the disk.
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits.

    A file that has not changed since this process last read it is not read again.
    """
    status = path.stat()
    # The time of the change, unlike that of the content, cannot be set by whoever writes.
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
    known = _KNOWN_SHA256.get(stamp)
    if known is not None:
        return known
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    # File systems count time in steps of some milliseconds: a file that was written just now may
    # change once more and keep its stamp.
    if time.time_ns() - status.st_ctime_ns > _SETTLED_NS:
        _KNOWN_SHA256[stamp] = found
    return found


def write_files(storage: Storage, folder: Path, contents: Mapping[str, bytes]) -> Manifest:
    """Write files, and return what the manifest says of them."""
    manifest = {}
    for name, content in contents.items():
        storage.write_bytes(folder / name, content)
        # Of what was to be written, not of what can be read: a bad disk is found out.
        sha256 = hashlib.sha256(content).hexdigest()
        manifest[name] = {"sha256": sha256, "size_bytes": len(content)}
    return manifest
