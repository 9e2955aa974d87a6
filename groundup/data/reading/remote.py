"""Files at an address, such as ``s3://bucket/folder``, and their copies here: fetched once, by
whoever needs them first, and checked by digest.

Addresses are opened by the library ``fsspec``, which knows many kinds of storage and is imported
nowhere else; plain folders need no library.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from groundup.core.errors import DataError, GroundupError, MissingExtraError

__all__ = ["RemoteFile", "RemoteFiles", "read_remote", "write_remote"]

_TRIES = 2  # a file that arrives damaged is fetched once more
_COPIED_AT_ONCE = 1 << 22  # bytes
_REMEDY = "Check the address, the network, and what the storage's library takes as credentials"


@dataclass(frozen=True)
class RemoteFile:
    """What a file has to be."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class RemoteFiles:
    """Files below an address. Cheap to send to another process, which fetches what it needs itself.

    Attributes:
        address: Of the folder, with a scheme or without.
        files: What each has to be, by its name below the address.
        cache: Where copies are kept, named by their digests: files that are equal are fetched once,
            whatever they are called.
    """

    address: str
    files: dict[str, RemoteFile]
    cache: Path

    def fetch(self, name: str) -> Path:
        """Return a copy of a file, fetched unless it is here already.

        Of several processes of one machine one fetches, and the others wait; no process has to
        know of another.

        Raises:
            DataError: If it cannot be read, or arrives twice with another content.
        """
        wanted = self.files[name]
        copy = self.cache / "fetched" / wanted.sha256[:2] / wanted.sha256
        # It got its name once it was checked; a size is what a disk that was full would change.
        if copy.is_file() and copy.stat().st_size == wanted.bytes:
            return copy
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.with_suffix(".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if copy.is_file() and copy.stat().st_size == wanted.bytes:
                return copy
            self._fetch_checked(name, wanted, copy)
        return copy

    def _fetch_checked(self, name: str, wanted: RemoteFile, copy: Path) -> None:
        found = ""
        for _ in range(_TRIES):
            partial = copy.with_name(f".{copy.name}.{uuid.uuid4().hex[:12]}")
            try:
                found = _download(self.address, name, partial)
                if found == wanted.sha256:
                    partial.rename(copy)
                    return
            finally:
                partial.unlink(missing_ok=True)
        raise DataError(
            _join(self.address, name),
            f"arrived {_TRIES} times with another content than its index says: sha256"
            f" {found[:12]}... instead of {wanted.sha256[:12]}...",
            "Write it there again: groundup data prepare RECIPE --to ADDRESS; or restore it",
        )


def read_remote(address: str, name: str) -> bytes:
    """Return the content of a small file.

    Raises:
        DataError: If it is not there or cannot be read.
    """
    with _open(address, name, "rb") as file:
        return file.read()


def write_remote(address: str, name: str, content: bytes | Path) -> None:
    """Write a file, from memory or from a file here.

    Raises:
        DataError: If it cannot be written.
    """
    with _open(address, name, "wb") as file:
        if isinstance(content, bytes):
            file.write(content)
            return
        with content.open("rb") as source:
            shutil.copyfileobj(source, file, _COPIED_AT_ONCE)


def _download(address: str, name: str, to: Path) -> str:
    """Copy a file, and return the SHA-256 of what came."""
    digest = hashlib.sha256()
    with _open(address, name, "rb") as source, to.open("wb") as out:
        while content := source.read(_COPIED_AT_ONCE):
            digest.update(content)
            out.write(content)
    return digest.hexdigest()


def _join(address: str, name: str) -> str:
    return f"{address.rstrip('/')}/{name}"


@contextlib.contextmanager
def _open(address: str, name: str, mode: str) -> Iterator[BinaryIO]:
    """Open a file below an address, and put failures into words."""
    where = _join(address, name)
    try:
        with _opened(where, mode) as file:
            yield file
    except GroundupError:
        raise
    except FileNotFoundError:
        raise DataError(where, "is not there", _REMEDY) from None
    # The libraries of storages raise errors of their own, of many classes.
    except Exception as error:
        what = str(error).splitlines() or [type(error).__name__]
        done = "read" if mode == "rb" else "written"
        raise DataError(where, f"cannot be {done}: {what[0][:200]}", _REMEDY) from error


def _opened(where: str, mode: str) -> Any:
    if "://" not in where:
        if mode == "wb":
            Path(where).parent.mkdir(parents=True, exist_ok=True)
        return Path(where).open(mode)
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError("fsspec", "storage") from None
    # only a file system has folders that have to be made
    folders = {"auto_mkdir": True} if where.startswith("file://") else {}
    try:
        return fsspec.open(where, mode, **folders)
    except ImportError as error:
        # in fsspec's own words: "Install s3fs to access S3"
        raise MissingExtraError(f"{where.split(':')[0]}:// ({error})", "storage") from None
