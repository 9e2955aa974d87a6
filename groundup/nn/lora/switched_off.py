"""A model as it is without its adapters, or with them merged, for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from groundup.nn.lora.adapters import LOW_RANK, adapted, detach, merge, unmerge

__all__ = ["merged", "only_adapters_trained", "without_adapters"]


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Within it the model computes as it did before any adapter, to the last bit."""
    # Taken out and put back, not set to nothing: a product with 0 would still be computed.
    kept = adapted(model)
    detach(model)
    try:
        yield
    finally:
        for name, module in kept.items():
            parent, _, child = name.rpartition(".")
            model.get_submodule(parent).register_module(child, module)


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Within it every adapter is in its layer's weight, which costs as much as without one."""
    merge(model)
    try:
        yield
    finally:
        unmerge(model)


def only_adapters_trained(model: nn.Module) -> bool:
    """Return whether there are adapters, and nothing else is trained: then the model without them
    is what it started from."""
    trained = [name for name, each in model.named_parameters() if each.requires_grad]
    return bool(trained) and all(name.rpartition(".")[2] in LOW_RANK for name in trained)
