"""Operators of groundup's own that run without PyTorch's compiler being imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["spare_the_compiler"]

# where torch 2.13 remembers the function that its compiler leaves alone
_KEY = "__dynamo_disable"


def spare_the_compiler(operator: Any) -> None:
    """Let an operator run without importing the compiler (2 to 3 s) only to tell it to leave the
    operator alone.

    The compiler is told as ever once something else has imported it. Where PyTorch keeps this
    elsewhere than torch 2.13 does, nothing is changed.

    Args:
        operator: What ``torch.library.custom_op`` returned.
    """
    # Private to torch: what another version does not have is left as it is.
    for decorated in getattr(operator, "_backend_fns", {}).values():
        plain = getattr(decorated, "__wrapped__", None)
        if plain is not None:
            plain.__dict__.setdefault(_KEY, _tell_once_imported(plain))


def _tell_once_imported(plain: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        compiler = sys.modules.get("torch._dynamo")
        # not imported, or in the middle of being imported, without its functions
        if compiler is None or not hasattr(compiler, "disable"):
            return plain(*args, **kwargs)
        told = plain.__dict__[_KEY] = compiler.disable(plain, True, wrapping=False)
        return told(*args, **kwargs)

    return run
