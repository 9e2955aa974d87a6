"""Where each thread of a process stands, written to a file once it fails or gets no further."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import time
import traceback
from datetime import datetime
from pathlib import Path
from typing import TextIO

__all__ = ["Stacks"]

# Starting the watch anew takes 0.1 ms, which a small model's steps would feel.
_RENEWED = 0.1


class Stacks:
    """The stacks of one process, in a file of a run's folder ``failures``.

    A process that is stuck in a computation, a lock or a read says nothing itself. So a watch of
    the interpreter, which needs no turn of its threads, writes where they are once nothing was
    heard for the timeout.

    Args:
        folder: Made where it is missing.
        name: Of the file, such as ``rank-1``.
        timeout_s: How long a process may go without ``renew``.
    """

    def __init__(self, folder: Path, name: str, timeout_s: float) -> None:
        self.folder = folder
        self._path = folder / f"{name}.txt"
        self._timeout_s = timeout_s
        self._renewed = -math.inf
        self._file: TextIO | None = None
        # Without its file a run is as good: the folder may be gone with a start that failed, or the
        # disk be full.
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)
            # Added to, as the sentence of an earlier failure may name it.
            self._file = self._path.open("a", encoding="utf-8")

    def renew(self) -> None:
        """Take note that this process gets on. Called at every step, so it does next to nothing."""
        now = time.monotonic()
        if self._file is not None and now - self._renewed > _RENEWED * self._timeout_s:
            self._renewed = now
            faulthandler.dump_traceback_later(self._timeout_s, file=self._file)

    def pause(self) -> None:
        """Stop watching until the next ``renew``."""
        faulthandler.cancel_dump_traceback_later()
        self._renewed = -math.inf

    def write(self, reason: str, error: BaseException | None = None) -> None:
        """Write where all threads are.

        Args:
            reason: Why they are looked at.
            error: What ended the process, whose own trace comes first.
        """
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            told = f"{datetime.now():%Y-%m-%d %H:%M:%S} process {os.getpid()}: {reason}\n"
            if error is not None:
                told += "".join(traceback.format_exception(error))
            self._file.write(told)
            # The dump goes past Python's own buffer, straight to the file.
            self._file.flush()
            faulthandler.dump_traceback(self._file)

    def close(self) -> None:
        """Stop watching, and leave no empty file behind."""
        if self._file is None:
            return
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self._file = None
        with contextlib.suppress(OSError):
            if not self._path.stat().st_size:
                self._path.unlink()
            # Whoever is last finds it empty.
            self.folder.rmdir()
