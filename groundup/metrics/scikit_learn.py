"""The one place where scikit-learn is imported."""

from __future__ import annotations

import importlib
from typing import Any

from groundup.core.errors import MissingExtraError

__all__ = ["scikit_learn"]


def scikit_learn(module: str) -> Any:
    """Return a module of scikit-learn, such as ``metrics``.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import sklearn

        return importlib.import_module(f"{sklearn.__name__}.{module}")
    except ImportError:
        raise MissingExtraError("scikit-learn", "classic") from None
