"""The library ``transformers``, imported only where it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from groundup.core.errors import MissingExtraError

__all__ = ["require_transformers"]


def require_transformers(module: str = "") -> Any:
    """Return the library, or one of its modules.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        return import_module(f"transformers.{module}" if module else "transformers")
    except ImportError:
        raise MissingExtraError("transformers", "pretrained") from None
