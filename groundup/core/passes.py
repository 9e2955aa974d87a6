"""Whether the rows of a batch may be computed in several passes of a model.

A task may compute rows of like lengths together, in as many passes as their lengths make worth it.
Where processes need each other to compute a layer, all have to make the same number of passes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["may_split_rows", "one_pass_each"]

_ONE_PASS: ContextVar[bool] = ContextVar("one_pass", default=False)


@contextlib.contextmanager
def one_pass_each() -> Iterator[None]:
    """Let every batch within be computed in one pass."""
    token = _ONE_PASS.set(True)
    try:
        yield
    finally:
        _ONE_PASS.reset(token)


def may_split_rows() -> bool:
    """Return whether a batch may be computed in more passes than one."""
    return not _ONE_PASS.get()
