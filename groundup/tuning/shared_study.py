"""A study that several machines work on: where it is kept, which trials are still worked on, and
those that a worker left behind.

A worker says every ``BEAT_S`` seconds that its trial is alive, by a number in the study that grows.
Whoever sees the same number for ``GRACE_S`` seconds of its own clock takes the trial as lost: the
clocks of two machines are never compared.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from groundup.core.errors import RecipeError, RunError

__all__ = ["BEAT_S", "GRACE_S", "LostTrials", "beat", "claim_recipe", "open_storage", "owner"]

BEAT_S = 20.0
# several beats: a disk of many machines may hang for a while
GRACE_S = 150.0
_OPENINGS = 20
_OPEN_AGAIN_S = 0.3
_PASSWORD = re.compile(r"(?<=://)([^:/@]+):[^@]*@")


def open_storage(where: str | None, folder: Path, optuna: Any) -> Any:
    """Return Optuna's storage of a study.

    Args:
        where: A file on a disk that all machines see, or the URL of a database; None: a file in the
            study's own folder.
        folder: The study's.
        optuna: The library.

    Raises:
        RecipeError: If the file or the database cannot be opened.
    """
    try:
        if where is not None and "://" in where:
            return _open_database(where, optuna)
        path = folder / "study.jsonl" if where is None else Path(where)
        path.parent.mkdir(parents=True, exist_ok=True)
        # a journal: several processes append to it under a lock, and a kill costs its last line
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    # of the driver of a database, which may be missing, or raise whatever it likes
    except Exception as error:
        found = str(error).splitlines() or [type(error).__name__]
        raise RecipeError(
            "recipe.tune.storage",
            f"{_without_password(str(where))} cannot be opened: {_without_password(found[0])}",
            "Give a file on a disk that all machines see, or the URL of a database whose driver is"
            " installed, such as postgresql://user@host/studies",
        ) from error


def _open_database(url: str, optuna: Any) -> Any:
    """Open a database; of workers that begin at once one makes its tables."""
    settings: dict[str, Any] = {}
    if url.startswith("sqlite"):
        # seconds to wait for others that write; 5, the library's own, are few on a busy machine
        settings["connect_args"] = {"timeout": 60}
    for _ in range(_OPENINGS):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=settings)
        except Exception as error:
            # Another was quicker by a moment: there are some of its tables by now, or a row that
            # may be there once. The class is that of a library of the storage's.
            beaten = "already exists" in str(error) or type(error).__name__ == "IntegrityError"
            if not beaten:
                raise
            time.sleep(_OPEN_AGAIN_S)
    return optuna.storages.RDBStorage(url, engine_kwargs=settings)


def _without_password(text: str) -> str:
    return _PASSWORD.sub(r"\1:***@", text)


def claim_recipe(study: Any, recipe: str, where: str) -> None:
    """Note the recipe in the study, or check that it is the one noted.

    Raises:
        RunError: If the study is of another recipe or another space.
    """
    known = study.user_attrs.get("recipe")
    if known is None:
        study.set_user_attr("recipe", recipe)
    elif known != recipe:
        raise RunError(
            _without_password(where),
            f"holds the study {study.study_name!r} of another recipe or another space; nothing"
            " there was touched",
            "Choose another name=..., or start every worker with the same recipe",
        )


def owner() -> str:
    """Return what this process is called in a study."""
    return f"{_machine()} {os.getpid()}"


@cache
def _machine() -> str:
    """Return a name that processes share which see each other's numbers: two containers may have
    one host's name, and each its own process 7."""
    signs = [socket.gethostname()]
    with suppress(OSError):
        signs.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
        signs.append(os.readlink("/proc/self/ns/pid"))
    digest = hashlib.sha256(" ".join(signs).encode()).hexdigest()
    return f"{signs[0]}-{digest[:8]}"


@contextmanager
def beat(trial: Any) -> Iterator[None]:
    """Say that a trial is alive, again and again from a thread of its own, until the block ends."""
    stop = threading.Event()
    count = int(trial.user_attrs.get("beat", 0))

    def run() -> None:
        number = count
        while not stop.wait(BEAT_S):
            number += 1
            # The trial may have been taken by others meanwhile, which the training finds out when
            # it reports; and a beat that is missed is followed by others.
            with suppress(Exception):
                trial.set_user_attr("beat", number)

    thread = threading.Thread(target=run, daemon=True, name="beat")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class LostTrials:
    """Finds trials whose worker is gone: its process, where it was of this machine, or its
    beats."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Any, float]] = {}

    def find(self, running: list[Any]) -> list[Any]:
        """Return those of the running trials that nobody works on any more.

        Args:
            running: All trials that the study says are running.
        """
        now = time.monotonic()
        lost = []
        for trial in running:
            sign = trial.user_attrs.get("beat")
            known = self._seen.get(trial.number)
            if known is None or known[0] != sign:
                self._seen[trial.number] = (sign, now)
                known = self._seen[trial.number]
            if _is_gone(trial.user_attrs.get("owner")) or now - known[1] > GRACE_S:
                lost.append(trial)
        return lost


def _is_gone(name: str | None) -> bool:
    """Whether a worker was a process of this machine that has ended."""
    if name is None:
        return False
    machine, process = name.rsplit(" ", 1)
    return machine == _machine() and not psutil.pid_exists(int(process))
