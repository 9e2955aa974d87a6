"""A folder that a process works in until it is finished, and that is removed if the process ends
before."""

from __future__ import annotations

import fcntl
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["open_working_folder"]

_STALE_S = 60.0  # a folder younger than this may be one whose lock is about to be taken


@contextmanager
def open_working_folder(folder: Path) -> Iterator[Path]:
    """Make a folder next to ``folder``, with a name that no other process has, and remove it at the
    end if it is still there; what killed processes left behind is removed too.

    Args:
        folder: The name that the finished folder may be given: renaming then never copies.
    """
    _remove_abandoned(folder)
    own = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:12]}.partial"
    try:
        own.mkdir(parents=True)
        with (own / "lock").open("wb") as lock:
            # released by the system if this process is killed: then the folder may be removed
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Delete what processes that were killed left behind: unfinished folders whose lock nobody
    holds."""
    for partial in folder.parent.glob(f".{folder.name}.*.partial"):
        try:
            with (partial / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # between making a folder and locking it a moment passes: young ones are left alone
                if time.time() - partial.stat().st_mtime > _STALE_S:
                    shutil.rmtree(partial, ignore_errors=True)
        except OSError:
            continue
