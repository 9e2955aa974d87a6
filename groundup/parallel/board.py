"""Words that processes leave for each other: unlike an exchange, at any time and in any thread."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch.distributed.distributed_c10d import Store

from groundup.parallel.liveness import beating, wait_for_key

__all__ = ["Board"]


class Board:
    """A store that all processes of a run reach.

    Args:
        store: The store.
        timeout_s: How long a process may give no sign of life.
        is_lost: Whether a rank is known to have ended.
    """

    def __init__(self, store: Store, timeout_s: float, is_lost: Callable[[int], bool]) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._is_lost = is_lost

    def leave(self, key: str, value: Any) -> None:
        """Leave a word: whatever JSON can say."""
        self._store.set(key, json.dumps(value))

    def alive(self, key: str) -> AbstractContextManager[None]:
        """Return the context in which whoever waits for a word knows that it will come."""
        return beating(self._store, key)

    def wait(self, key: str, rank: int) -> Any:
        """Return the word that a process leaves, once it is there.

        Raises:
            RuntimeError: If the process has ended, or gives no sign of life.
        """
        wait_for_key(self._store, key, self._timeout_s, lambda: self._is_lost(rank))
        return json.loads(self._store.get(key))
