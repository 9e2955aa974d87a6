"""The one place where a model is divided between processes."""

from __future__ import annotations

from torch import nn

from groundup.parallel.context import divide_texts
from groundup.parallel.layout import Layout
from groundup.parallel.pipeline import take_stage
from groundup.parallel.shard import divide_parameters
from groundup.parallel.tensor import divide_matrices

__all__ = ["lay_out"]


def lay_out(model: nn.Module, layout: Layout) -> nn.Module:
    """Return what this process has of a model.

    All processes call it at the same time, each with the whole model: with the same weights, on its
    device.

    Args:
        model: The whole one; it may be changed.
        layout: Of the run, connected.

    Raises:
        RecipeError: Naming the axis that this model cannot be divided along.
    """
    # From coarse to fine. The parameters last: what is left of them is divided once more.
    if layout.pipeline > 1:
        model = take_stage(model, layout)
    if layout.context > 1:
        model = divide_texts(model, layout)
    if layout.tensor > 1:
        model = divide_matrices(model, layout)
    if layout.shard > 1:
        model = divide_parameters(model, layout)
    return model
