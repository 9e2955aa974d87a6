"""Parts of one's own that tests register, and forget again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from groundup.core import registry

__all__ = ["forget_own_parts"]


@contextmanager
def forget_own_parts() -> Iterator[None]:
    """Forget afterwards what files of users have registered within."""
    before = {kind: dict(known) for kind, known in registry._registered.items()}
    try:
        yield
    finally:
        for kind, known in before.items():
            own = set(registry._registered[kind]) - set(known)
            for name in own - set(registry.BUILTINS[kind]):
                del registry._registered[kind][name]
        for module in [name for name in sys.modules if name.startswith("groundup_user_")]:
            del sys.modules[module]
