"""The library ``transformers``, imported only where it is needed."""

from __future__ import annotations

from typing import Any

from groundup.core.errors import MissingExtraError

__all__ = ["require_transformers"]


def require_transformers() -> Any:
    """Return the library, with what turns its tensors into those of its files.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import transformers
        import transformers.core_model_loading
    except ImportError:
        raise MissingExtraError("transformers", "pretrained") from None
    return transformers
