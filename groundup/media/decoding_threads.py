"""Pictures decoded next to each other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

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
    # A pool for each call: one that is kept would not survive the fork of a data worker.
    with ThreadPoolExecutor(workers) as threads:
        try:
            for _ in threads.map(do, range(count)):
                pass
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
