"""Naming the process that fails, stops or hangs, on all of those that wait for it."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed.distributed_c10d import Store

from groundup.core.errors import GroundupError, Interrupted, TrainingError
from groundup.parallel.board import Board
from groundup.parallel.exchange import Disagreement
from groundup.parallel.liveness import Neighbours, beating, wait_for_key
from groundup.parallel.stacks import Stacks

__all__ = ["Absences", "Member", "first_line"]

# Long enough for every process that is well to notice and to leave word.
_NOTICE_S = 3.0
_POLL_S = 0.05
_GO_ON = "Start the same command again: the run goes on from its last intact checkpoint"


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
        timeout_s: How long to wait for a sign of life.

    Attributes:
        place: What this process is doing.
        found: Whether an exchange has failed.
    """

    def __init__(self, store: Store, own: Member, size: int, timeout_s: float) -> None:
        self.place = "the start"
        self.found = False
        self._store = store
        self._own = own
        self._size = size
        self._timeout_s = timeout_s
        self._members: list[Member] = []
        self._neighbours: Neighbours | None = None
        self._stacks: Stacks | None = None

    def introduce(self, members: list[Member]) -> None:
        """Take note of all processes, in order, and watch those of this machine."""
        self._members = members
        others = {
            each.rank: each.process
            for each in members
            if each.host == self._own.host and each.rank != self._own.rank
        }
        self._neighbours = Neighbours(others, self._has_ended, self._give_up)

    def name(self, rank: int) -> str:
        """Return what to call a process: by its number alone until they have been introduced."""
        return str(self._members[rank]) if self._members else f"rank {rank}"

    def keep_stacks(self, folder: Path, attempt: str) -> None:
        """Write the stacks of this process to a folder once it fails or gets no further."""
        if self._stacks is not None:
            self._stacks.close()
        name = f"rank-{self._own.rank}-attempt-{attempt}"
        self._stacks = Stacks(folder, name, self._timeout_s)

    def move_to(self, place: str) -> None:
        """Take note that this process gets on."""
        self.place = place
        if self._stacks is not None:
            self._stacks.renew()

    def close(self) -> None:
        """Say that this process ends because all is done, and stop watching."""
        with contextlib.suppress(RuntimeError):
            self._store.set(f"ended/{self._own.rank}", "yes")
        if self._neighbours is not None:
            self._neighbours.close()
        if self._stacks is not None:
            self._stacks.close()

    @contextlib.contextmanager
    def named(self, what: str) -> Iterator[None]:
        """Turn a failure within into an error that names the processes which did not answer.

        Args:
            what: What is exchanged.

        Raises:
            TrainingError: Naming rank, host, process, step and what was exchanged.
        """
        try:
            yield
        except Disagreement as error:
            told = [f"{self.name(rank)}: {words}" for rank, words in error.said.items()]
            raise TrainingError(
                f"{self._own}, {self.place}",
                f"the processes exchange different things: {'; '.join(told)}",
                "All have to exchange the same: see what a task, a model or a loop of your own does"
                " on one of them alone" + self._where_stacks(error),
            ) from error
        # PyTorch's backends raise it, with words of their own, for everything that goes wrong.
        except RuntimeError as error:
            self.found = True
            absent = self._find_absent(f"{self.place}, {what}")
            problem = f"failed while {what} ({first_line(error)})"
            if absent:
                problem = f"{'; '.join(absent)} while {what}"
            raise TrainingError(
                f"{self._own}, {self.place}", problem, _GO_ON + self._where_stacks(error)
            ) from error

    @contextlib.contextmanager
    def named_hidden(self) -> Iterator[None]:
        """Do the same for what PyTorch itself exchanges, and leave all other failures: FSDP gathers
        parameters between the layers of a forward and a backward pass."""
        try:
            yield
        except RuntimeError as error:
            if not _is_of_exchange(error):
                raise
            with self.named("parts of parameters are exchanged"):
                raise

    @contextlib.contextmanager
    def alive(self, key: str) -> Iterator[None]:
        """Give signs of life within, for those that ``wait``."""
        with self._unwatched(), beating(self._store, key):
            yield

    def wait(self, key: str) -> None:
        """Wait for the first process, as long as it gives signs of life.

        Raises:
            RuntimeError: If it does not.
        """
        with self._unwatched():
            wait_for_key(self._store, key, self._timeout_s, lambda: self.is_lost(0))

    @property
    def board(self) -> Board:
        """What processes leave words for each other at."""
        return Board(self._store, self._timeout_s, self.is_lost)

    def is_lost(self, rank: int) -> bool:
        """Whether a process is known to have ended before all was done."""
        lost = [] if self._neighbours is None else self._neighbours.lost()
        return rank in lost or "failure" in (self._word_of(rank) or {})

    @contextlib.contextmanager
    def _unwatched(self) -> Iterator[None]:
        """Within, getting no further is no failure."""
        if self._stacks is not None:
            self._stacks.pause()
        yield
        if self._stacks is not None:
            self._stacks.renew()

    def _where_stacks(self, error: BaseException) -> str:
        if self._stacks is None:
            return ""
        self._stacks.write(self.place, error)
        return f"; stacks are in {self._stacks.folder}"

    def tell_failure(self, error: BaseException) -> None:
        """Leave word that this process ends, and why; its own error then names it.

        Args:
            error: What ends it.
        """
        # First the word, then the own error: the others may be waiting. Of a stop that was asked
        # for all know.
        said = str(error) if isinstance(error, GroundupError) else repr(error)
        if not isinstance(error, Interrupted):
            self._leave_word({"failure": said.rstrip(".")})
        named = f"{self._own}, {self.place}"
        if isinstance(error, GroundupError) and not error.where.startswith(str(self._own)):
            if self._stacks is not None and not isinstance(error, Interrupted):
                self._stacks.write(self.place, error)
            GroundupError.__init__(error, f"{named}: {error.where}", error.problem, error.remedy)

    def _has_ended(self, rank: int) -> bool:
        """Whether a process ended because all was done."""
        with contextlib.suppress(RuntimeError):
            ended = self._store.check([f"ended/{rank}"])
            return ended and "failure" not in (self._word_of(rank) or {})
        # Without the store nothing is known: nobody is to be ended for that.
        return True

    def _give_up(self, rank: int) -> int:
        """Say that a process is gone, and return the exit code with which this one ends."""
        error = TrainingError(
            f"{self._own}, {self.place}",
            f"{self.name(rank)} is gone, and what this process computes meanwhile is of no use",
            _GO_ON,
        )
        if self._stacks is not None:
            self._stacks.write(self.place)
            error = TrainingError(
                error.where, error.problem, f"{_GO_ON}; stacks are in {self._stacks.folder}"
            )
        print(error, file=sys.stderr)
        return error.exit_code

    def _find_absent(self, place: str) -> list[str]:
        """Return what is known of each process that has left no word of having waited in vain."""
        self._leave_word({"waits": place})
        # Whoever was waiting too is told a moment later than this process, or sooner.
        end = time.monotonic() + _NOTICE_S
        found = self._words()
        while self._awaits(found) and time.monotonic() < end:
            time.sleep(_POLL_S)
            found = self._words()
        absent = []
        for rank in range(self._size):
            name = self.name(rank)
            word = found.get(rank)
            if word is None:
                absent.append(f"{name} did not answer")
            elif "failure" in word:
                absent.append(f"{name} ended ({word['failure']})")
        return absent

    def _awaits(self, found: dict[int, dict[str, Any]]) -> bool:
        """Whether a word may still come; of whoever is known to be gone none will."""
        return any(rank not in found and not self.is_lost(rank) for rank in range(self._size))

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


def _is_of_exchange(error: BaseException) -> bool:
    """Whether an error was raised within PyTorch's exchanges between processes, rather than by what
    is computed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and "torch/distributed" in trace.tb_frame.f_code.co_filename


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
