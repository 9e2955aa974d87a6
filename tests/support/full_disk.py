"""A disk that is full after so many files."""

from __future__ import annotations

import errno
from pathlib import Path

from groundup.core.storage import Storage

__all__ = ["FullDisk"]


class FullDisk(Storage):
    """Has room for so many files, then none."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Write a file, or the beginning of one, and fail.

        Raises:
            OSError: If there is no room.
        """
        if self.room == 0:
            path.write_bytes(content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= 1
        super().write_bytes(path, content)
