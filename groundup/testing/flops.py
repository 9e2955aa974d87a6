"""FLOPs as PyTorch counts them."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["FlopTotal"]


class FlopTotal(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums up what PyTorch's formulas say of the operations that run inside of it.

    PyTorch's own counter also says in which layer each was, and takes three times as long.

    Attributes:
        flops: So far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        # Operations that consist of others come here as those others.
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=found)
        return found
