"""Pictures decoded next to each other."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import torch

__all__ = ["for_each"]

_FEW = 8  # of fewer, starting threads takes as long as it saves


def for_each(do: Callable[[int], None], count: int, *, parallel: bool) -> None:
    """Call ``do`` with the numbers from 0 to ``count`` - 1; in threads, as many as torch computes
    with.

    What is raised is the error of the lowest number, as in a loop; numbers that no thread has begun
    with are then left out.

    Args:
        do: Must write to places of its number alone.
        count: How many numbers.
        parallel: Whether it lets other threads run, as decoding a file does.
    """
    # Workers of a data loader have one: they are next to each other already.
    workers = min(torch.get_num_threads(), count)
    if not parallel or workers < 2 or count < _FEW:
        for number in range(count):
            do(number)
        return
    numbers = iter(range(count))
    failures: dict[int, BaseException] = {}

    def work() -> None:
        # Each takes the next number when it is free, which costs less than handing numbers out.
        for number in numbers:
            try:
                do(number)
            except BaseException as error:
                failures[number] = error
            if failures:
                return

    # Threads for each call: those that are kept would not survive the fork of a data worker.
    others = [Thread(target=work, name="decoding") for _ in range(workers - 1)]
    for each in others:
        each.start()
    work()
    for each in others:
        each.join()
    if failures:
        raise failures[min(failures)]
