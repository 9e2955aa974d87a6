"""Files inside tar archives: found once by reading the headers, and read where they are.

Source:
    The layout of headers is POSIX.1-2001's (ustar and pax), read by Python's tarfile. Grouping by
    key is WebDataset's: of ``a/b.seg.png`` the key is ``a/b``, and ``seg.png`` says which part of
    the sample it is (Aizman, Maltby, Breuel, 2019, "High performance I/O for large scale deep
    learning", arXiv:2001.01858).
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from groundup.core.errors import DataError
from groundup.core.values import StoredFile
from groundup.data.reading.listing import is_hidden

__all__ = ["TarIndex", "TarMember", "expand_braces", "group_members", "index_tar"]

_BLOCK = tarfile.BLOCKSIZE
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST = 1_000_000  # archives that a pattern may name
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"(\xb5/\xfd": "zstd -d",
}


@dataclass(frozen=True, slots=True)
class TarMember(StoredFile):
    """One file in an archive, read from its place without what is before it."""

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"

    def read(self) -> bytes:
        """Return the file's bytes."""
        try:
            # Opened each time, because workers must not share a place in one open file.
            with self.archive.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise DataError(str(self), f"cannot be read: {error}", "Fetch it again") from None
        if len(content) < self.size:
            raise DataError(
                str(self),
                f"the archive ends after {len(content):,} of its {self.size:,} bytes",
                "Fetch the archive again",
            )
        return content


@dataclass(frozen=True)
class TarIndex:
    """What an archive holds.

    Attributes:
        members: The files, in their order.
        left_out: What is no file that is read, by the reason.
        problem: Why nothing is read beyond the last of them; empty where all is.
        warning: What looks like a mistake, or an empty text.
    """

    members: tuple[TarMember, ...]
    left_out: Counter[str] = field(default_factory=Counter)
    problem: str = ""
    warning: str = ""


def expand_braces(path: str) -> list[str]:
    """Return the paths that a pattern such as ``shards/{000..012}.tar`` stands for; what is there
    by that very name is itself.

    Raises:
        DataError: If a range ends before it begins, or there are too many.
    """
    found = _RANGE.search(path)
    if found is None or Path(path).exists():
        return [path]
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    # A slip such as {0..10000000000} would fill the memory with names.
    if not 0 < len(numbers) <= _MOST:
        raise DataError(
            path,
            f"{found[0]} stands for {len(numbers):,} names; allowed: 1 to {_MOST:,}",
            "Write the smaller number first, as in {000..012}",
        )
    # As a shell does: numbers are as wide as the first is written.
    wide = len(first) if first.startswith("0") or len(first) == len(last) else 0
    expanded = (path[: found.start()] + f"{n:0{wide}}" + path[found.end() :] for n in numbers)
    return [each for one in expanded for each in expand_braces(one)]


def index_tar(path: Path) -> TarIndex:
    """Return where the files of an archive are; the headers alone are read.

    Raises:
        DataError: If it is no archive, or a compressed one, in which nothing can be read by its
            place.
    """
    # Asked here, so that a file that is written again is read again.
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            str(path), f"cannot be read: {error.strerror}", "Correct the path"
        ) from None
    return _index(path, status.st_size, status.st_mtime_ns)


# Of one state of a file, because a source is asked for its splits, examples and card one by one.
@lru_cache(maxsize=4096)
def _index(path: Path, size: int, changed: int) -> TarIndex:
    with path.open("rb") as file:
        head = file.read(8)
    # tarfile would read them, from the beginning for every picture.
    for magic, command in _COMPRESSED.items():
        if head.startswith(magic):
            raise DataError(
                str(path),
                "is a compressed archive, in which no picture can be read without all before it",
                f"Decompress it, which pictures hardly grow by: {command} {path.name}",
            )
    members: list[TarMember] = []
    left_out: Counter[str] = Counter()
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                # Sparse files have holes, and are not at one place; links could lead anywhere.
                if entry.isreg() and not entry.issparse():
                    if any(map(is_hidden, entry.name.removeprefix("./").split("/"))):
                        left_out["hidden"] += 1
                    else:
                        members.append(TarMember(path, entry.name, entry.offset_data, entry.size))
                elif not entry.isdir():
                    left_out["no files (links, devices)"] += 1
            end = archive.offset
    except (tarfile.TarError, OSError, ValueError) as error:
        if not members:
            raise DataError(
                str(path), f"is no tar archive: {error}", "Fetch it again, or name another"
            ) from None
        return _cut_off(members, left_out, size, f"it ends within {members[-1].name}")
    return _check_end(path, TarIndex(tuple(members), left_out), size, end)


def _check_end(path: Path, found: TarIndex, size: int, end: int) -> TarIndex:
    """Return the index with what is wrong with the archive's end, which tarfile passes over."""
    members, left_out = list(found.members), found.left_out
    # Reading headers skips over contents, beyond the end of the file if need be.
    if members and members[-1].offset + members[-1].size > size:
        return _cut_off(members, left_out, size, f"it ends within {members[-1].name}")
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(_BLOCK)
        if not block:
            warning = "it has no end mark: what was written after its last file may be missing"
            return TarIndex(found.members, left_out, "", warning)
        if len(block) < _BLOCK:
            return _cut_off(members, left_out, size, "it ends within a header")
        # tarfile takes whatever is no header for the end, and a damaged archive for a short one.
        if any(block):
            problem = f"what begins at byte {end:,} is no header: it is damaged there"
            return TarIndex(found.members, left_out, problem)
        # cat one.tar two.tar gives a file of which tar itself lists the first alone.
        while more := file.read(1 << 20):
            if any(more):
                problem = f"another archive is appended after the end mark at byte {end:,}"
                return TarIndex(found.members, left_out, problem)
    return found


def _cut_off(members: list[TarMember], left_out: Counter[str], size: int, problem: str) -> TarIndex:
    # A file of which the last bytes are missing is no file.
    whole = tuple(member for member in members if member.offset + member.size <= size)
    return TarIndex(whole, left_out, f"{problem}, after {len(whole):,} whole files")


def group_members(members: Iterable[TarMember]) -> dict[str, dict[str, TarMember]]:
    """Return the parts of each sample by its key; parts of one key need not be next to each other.

    Raises:
        DataError: If a sample has a part twice.
    """
    # Of the whole archive: one that tar wrote from a folder has the files in any order.
    groups: dict[str, dict[str, TarMember]] = {}
    for member in members:
        folder, slash, last = member.name.removeprefix("./").rpartition("/")
        stem, _, part = last.partition(".")
        parts = groups.setdefault(folder + slash + stem, {})
        if part.lower() in parts:
            raise DataError(
                str(member),
                f"the sample {folder + slash + stem!r} has {part!r} twice",
                "Remove one",
            )
        parts[part.lower()] = member
    return groups
