"""Naming the process that fails, stops or hangs, on all of those that wait for it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.distributed.distributed_c10d import Store

from groundup.core.errors import GroundupError, TrainingError

__all__ = ["Absences", "Member", "first_line"]

# Long enough for every process that is well to notice and to leave word.
_NOTICE_S = 3.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Member:
    """A process of the run.

    Attributes:
        host: The name of its machine.
        process: Its number there.
    """

    rank: int
    host: str
    process: int

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.process} on {self.host})"


class Absences:
    """Finds out who is missing when an exchange fails.

    Whoever is well leaves word in the store that the exchange failed for it, too; whoever does not
    is the one to be named. So nothing is sent as long as all goes well.

    Args:
        store: Reached by all processes, also by those whose exchange has failed.
        own: This process.
        size: How many there are.

    Attributes:
        members: All processes, in order; until they have introduced themselves, this one alone.
    """

    def __init__(self, store: Store, own: Member, size: int) -> None:
        self._store = store
        self._own = own
        self._size = size
        self.members: list[Member] = []

    @contextlib.contextmanager
    def named(self, what: str, place: str) -> Iterator[None]:
        """Turn a failure within into an error that names the processes which did not answer.

        Args:
            what: What is exchanged.
            place: What this process is doing.

        Raises:
            TrainingError: Naming rank, host, process, step and what was exchanged.
        """
        try:
            yield
        # PyTorch's backends raise it, with words of their own, for everything that goes wrong.
        except RuntimeError as error:
            absent = self._find_absent(f"{place}, {what}")
            problem = f"failed while {what} ({first_line(error)})"
            if absent:
                problem = f"{'; '.join(absent)} while {what}"
            raise TrainingError(
                f"{self._own}, {place}",
                problem,
                "Start the same command again: the run goes on from its last intact checkpoint",
            ) from error

    def tell_failure(self, error: BaseException, place: str) -> None:
        """Leave word that this process ends, and why; its own error then names it.

        Args:
            error: What ends it.
            place: What it was doing.
        """
        # First the word, then the own error: the others may be waiting.
        said = str(error) if isinstance(error, GroundupError) else repr(error)
        self._leave_word({"failure": said.rstrip(".")})
        named = f"{self._own}, {place}"
        if isinstance(error, GroundupError) and not error.where.startswith(str(self._own)):
            GroundupError.__init__(error, f"{named}: {error.where}", error.problem, error.remedy)

    def has_failed(self, rank: int) -> bool:
        """Return whether a process has left word that it ends."""
        return "failure" in (self._word_of(rank) or {})

    def _find_absent(self, place: str) -> list[str]:
        """Return what is known of each process that has left no word of having waited in vain."""
        self._leave_word({"waits": place})
        # Whoever was waiting too is told a moment later than this process, or sooner.
        end = time.monotonic() + _NOTICE_S
        found = self._words()
        while len(found) < self._size and time.monotonic() < end:
            time.sleep(_POLL_S)
            found = self._words()
        absent = []
        for rank in range(self._size):
            name = str(self.members[rank]) if self.members else f"rank {rank}"
            word = found.get(rank)
            if word is None:
                absent.append(f"{name} did not answer")
            elif "failure" in word:
                absent.append(f"{name} ended ({word['failure']})")
        return absent

    def _leave_word(self, word: dict[str, Any]) -> None:
        # The store may be gone with the machine that held it: then nobody is told anything.
        with contextlib.suppress(RuntimeError):
            self._store.set(f"word/{self._own.rank}", json.dumps(word))

    def _words(self) -> dict[int, dict[str, Any]]:
        words: dict[int, dict[str, Any]] = {}
        with contextlib.suppress(RuntimeError):
            for rank in range(self._size):
                if word := self._word_of(rank):
                    words[rank] = word
        return words

    def _word_of(self, rank: int) -> dict[str, Any] | None:
        key = f"word/{rank}"
        if not self._store.check([key]):
            return None
        word: dict[str, Any] = json.loads(self._store.get(key))
        return word


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
