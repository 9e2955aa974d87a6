"""A network that thinks of positions for a search.

Shape legend: B positions, K numbers of a state, A moves.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from groundup.contracts.games import Evaluate, Game

__all__ = ["thoughts_of"]

# Batches of few sizes, since a kernel is prepared once for each; but not so few that the games left
# at the end of a round cost as much as many.
_MULTIPLE = 8


def thoughts_of(
    model: nn.Module, game: Game, weights: Mapping[str, Tensor] | None = None
) -> Evaluate:
    """Return what a trained network thinks of positions, with the weights of now.

    The copy that answers is in the precision that holds where this is called, each batch norm a
    part of the convolution before it: the same function, in about half of the time.

    Args:
        model: Gives (B, A + 1) of planes: the logits of the moves, and what can be expected.
        game: The rules.
        weights: Others than its own, by the same names.
    """
    device = next(model.parameters()).device
    dtype = next(model.parameters()).dtype
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    # A copy: the weights that are trained stay in their own precision.
    answering = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    if weights is not None:
        answering.load_state_dict(weights)
    _fold(answering)
    answering.to(dtype)

    def evaluate(states: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        planes = game.encode(states)
        padded = np.zeros((-(-len(planes) // _MULTIPLE) * _MULTIPLE, *planes.shape[1:]), np.float32)
        padded[: len(planes)] = planes
        # Already in its precision: casts of every weight would cost more than the products.
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            given = torch.from_numpy(padded).to(device, dtype)
            found = answering(given)[: len(planes)].float().cpu().numpy()
        return found[:, :-1], found[:, -1]

    return evaluate


def _fold(model: nn.Module) -> None:
    """Make each batch norm a part of the convolution before it."""
    for layers in model.modules():
        if not isinstance(layers, nn.Sequential):
            continue
        for place in range(len(layers) - 1):
            first = layers[place]
            norm = layers[place + 1]
            if isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layers[place] = fuse_conv_bn_eval(first, norm)
                layers[place + 1] = nn.Identity()
