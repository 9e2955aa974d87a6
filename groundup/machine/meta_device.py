"""Modules without content: names, shapes and dtypes of what a model would hold, in milliseconds and
no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["without_content"]

_FILLS = {"normal_", "uniform_", "trunc_normal_", "constant_", "zeros_", "ones_", "fill_", "zero_"}


@contextmanager
def without_content() -> Iterator[None]:
    """Make every tensor on the device ``meta``, and draw no numbers for it.

    PyTorch computes what filling such a tensor would give, and imports its compiler for that (3 s).
    """
    with torch.device("meta"), _NothingDrawn():
        yield


class _NothingDrawn(TorchFunctionMode):
    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        # a built-in function of torch may have no name
        if getattr(function, "__name__", "") in _FILLS:
            # the tensor comes first, by place or by name
            return (*args, *named.values())[0]
        return function(*args, **named)
