"""Noticing that a run is slowed by other work on the machine, and saying so."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from groundup.machine.threads import waits_by_spinning

__all__ = ["ContentionWatch", "Usage", "measure_usage"]

# shorter, and the start of an editor would be a message
_WINDOW_S = 10.0
_REPEAT_S = 600.0
# cores taken by others that are worth a word
_TAKEN = 0.25
# share of the cores in use from which one program's gain is another's loss
_FULL = 0.9
_SLOWER = 1.25


@dataclass(frozen=True)
class Usage:
    """Seconds since some moment: of the clock, and of the cores that this process may use.

    Attributes:
        clock_s: By the clock.
        own_s: Cores' time that this process and those it started took.
        all_s: Cores' time that everything took.
        cores: How many cores there are.
    """

    clock_s: float
    own_s: float
    all_s: float
    cores: int


def measure_usage() -> Usage:
    """Return what was used up to now."""
    own = 0.0
    here = psutil.Process()
    for process in (here, *here.children(recursive=True)):
        # Data workers are part of the run; one that has just ended has no times any more.
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            own += times.user + times.system
    allowed = os.sched_getaffinity(0)
    cores = [times for core, times in enumerate(psutil.cpu_times(percpu=True)) if core in allowed]
    # iowait is idle time; steal is what a virtual machine's neighbours took
    busy = sum(sum(times[:8]) - times.idle - times.iowait for times in cores)
    return Usage(time.perf_counter(), own, busy, len(cores))


class ContentionWatch:
    """Compares what a run gets of the machine with what others take, ten seconds at a time.

    Args:
        threads: How many the run computes with.
        measure: What measures; tests give their own.
    """

    def __init__(self, threads: int, measure: Callable[[], Usage] = measure_usage) -> None:
        self._measure = measure
        self._before = measure()
        # cores that the run uses when it is alone
        self._usual = float(threads)
        self._next_message_s = self._before.clock_s

    def check(self) -> str:
        """Return a line for the user where other programs slow the run down; mostly it is empty.

        It says so at most once in ten minutes. Between the ends of windows it only looks at the
        clock.
        """
        if time.perf_counter() - self._before.clock_s < _WINDOW_S:
            return ""
        before = self._before
        now = self._before = self._measure()
        seconds = now.clock_s - before.clock_s
        own = max((now.own_s - before.own_s) / seconds, 1e-3)
        others = max((now.all_s - before.all_s) / seconds - own, 0.0)
        if others < _TAKEN:
            # a run whose threads are not always busy needs less than all cores
            self._usual = own
        slower = self._usual / own
        crowded = others >= _TAKEN and own + others >= _FULL * now.cores
        if not crowded or slower < _SLOWER or now.clock_s < self._next_message_s:
            return ""
        self._next_message_s = now.clock_s + _REPEAT_S
        message = (
            f"other programs take {others:.1f} of {now.cores} cores: steps take about"
            f" {slower:.1f} times as long. End them, or use fewer threads (machine.threads)"
        )
        if waits_by_spinning():
            message += (
                "; torch was imported before groundup, so its threads wait by spinning, which makes"
                " this worse: import groundup first"
            )
        return message
