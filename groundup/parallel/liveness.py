"""Whether the other processes are still there, of which an exchange only tells those that take part
in it."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psutil
from torch.distributed.distributed_c10d import Store

__all__ = ["Neighbours", "beating", "is_gone", "repeating", "wait_for_key"]

_POLL_S = 0.02
_LOOK_S = 0.5
_BEAT_S = 1.0
# Whoever was exchanging something has noticed by then, and said so.
_PATIENCE_S = 6.0


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended; a number that another one has by now does not count."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


class Neighbours:
    """The processes of the run that were started by the same agent, on this machine.

    One that computes for minutes, as in a validation, exchanges nothing meanwhile. When another one
    is killed the agent asks it to end, which it would take for a request to save, and waits half a
    minute. So a thread looks, and ends the process: without the other one nothing can be saved.

    Args:
        processes: The numbers of the others on this machine, by rank.
        has_ended: Whether a rank has said that it ends because all is done.
        give_up: Called with the rank that is gone before this process ends; returns its exit code.
    """

    def __init__(
        self,
        processes: dict[int, int],
        has_ended: Callable[[int], bool],
        give_up: Callable[[int], int],
    ) -> None:
        self._has_ended = has_ended
        self._give_up = give_up
        self._closed = threading.Event()
        self._watched: dict[int, psutil.Process] = {}
        for rank, number in processes.items():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(number)
                # In containers a number may be another process's: of one agent they are the same.
                if process.ppid() == os.getppid():
                    self._watched[rank] = process
        if self._watched:
            threading.Thread(target=self._look, daemon=True, name="neighbours").start()

    def lost(self) -> list[int]:
        """Return the ranks that are gone without having said that all is done."""
        return [
            rank
            for rank, process in self._watched.items()
            if is_gone(process) and not self._has_ended(rank)
        ]

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()

    def _look(self) -> None:
        since: float | None = None
        while not self._closed.wait(_LOOK_S):
            lost = self.lost()
            if not lost:
                continue
            since = since or time.monotonic()
            if time.monotonic() - since > _PATIENCE_S and not self._closed.is_set():
                code = self._give_up(lost[0])
                sys.stderr.flush()
                # Not by an exception: the main thread is within a computation that may take long,
                # and what it would write at its end is of no use.
                os._exit(code)


@contextlib.contextmanager
def beating(store: Store, key: str) -> Iterator[None]:
    """Give signs of life while something is done that takes however long it takes.

    Args:
        store: Reached by those that wait.
        key: Of what is done; see ``wait_for_key``.
    """
    numbers = itertools.count(1)

    def beat() -> None:
        # The store may be gone with its machine: then nobody waits.
        with contextlib.suppress(RuntimeError):
            store.set(f"{key}/beat", str(next(numbers)))

    with repeating(beat, _BEAT_S, "signs of life"):
        yield


@contextlib.contextmanager
def repeating(action: Callable[[], None], every_s: float, name: str) -> Iterator[None]:
    """Do something again and again in a thread, until the context ends.

    Args:
        action: What is done; it raises nothing.
        every_s: Seconds before each time.
        name: Of the thread.
    """
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(every_s):
            action()

    thread = threading.Thread(target=repeat, daemon=True, name=name)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def wait_for_key(store: Store, key: str, timeout_s: float, has_failed: Callable[[], bool]) -> None:
    """Wait until a key is set, as long as who will set it gives signs of life.

    Args:
        store: Where the key will be.
        key: Set once something is done.
        timeout_s: How long it may be quiet.
        has_failed: Whether it is known that nobody will set it.

    Raises:
        RuntimeError: If nobody will.
    """
    heard = b""
    since = time.monotonic()
    # In pieces, between which a signal is heard.
    while not store.check([key]):
        if has_failed():
            raise RuntimeError("the process has ended")
        if store.check([f"{key}/beat"]):
            beat = store.get(f"{key}/beat")
            if beat != heard:
                heard = beat
                since = time.monotonic()
        if time.monotonic() - since > timeout_s:
            raise RuntimeError(f"no sign of life for {timeout_s:g} s")
        time.sleep(_POLL_S)
