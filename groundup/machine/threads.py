"""How the threads of a computation wait for each other. Nothing here imports torch.

PyTorch computes with libgomp (OpenMP of GCC), whose threads wait by spinning: 300,000 times, about
14 ms. On a quiet machine that is the quickest way; next to another busy process a spinning thread
keeps the core that the thread it waits for needs, and a step takes three to ten times as long,
depending on the processor. Sleeping at once (``OMP_WAIT_POLICY=passive``) costs about 10% on a
quiet machine. A short spin costs less than that and does nearly as well on a busy one
(EXPERIMENTS.md, benchmarks/contention.py).

libgomp reads these variables once, when torch loads it, so they have to be set before.
"""

from __future__ import annotations

import os
import sys

__all__ = ["SPIN_COUNT", "VARIABLES", "choose_waiting_policy", "waits_by_spinning"]

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
# about 50 us: longer than most waits of a step, far less than a slice of time
SPIN_COUNT = 1000


def choose_waiting_policy() -> None:
    """Let threads spin shortly, then sleep, in this process and in those that it starts.

    Nothing is changed where the user has chosen, nor in a process that has loaded torch already.
    """
    if "torch" in sys.modules or any(name in os.environ for name in VARIABLES):
        return
    os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def waits_by_spinning() -> bool:
    """Return whether torch was loaded without a waiting policy: before groundup."""
    return not any(name in os.environ for name in VARIABLES)
