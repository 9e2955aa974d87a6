"""Libraries that take seconds to import: only the worker that runs a test of theirs imports them,
not every worker."""

from __future__ import annotations

from typing import Any

import pytest


class Library:
    """Stands for a module and imports it when it is first used; a test that needs it is skipped
    where it is missing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_", "pytest")):  # what pytest asks of every global name
            raise AttributeError(name)
        return getattr(pytest.importorskip(self._name), name)
