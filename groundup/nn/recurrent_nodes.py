"""Recurrent layers as nodes of an ONNX graph, which has no packed sequences but receives the
lengths.

Shape legend: B rows, T positions, F numbers that go in, H channels of a direction's state, D
    directions, G gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["in_graph", "node_states"]

# PyTorch's mode: ONNX's operator, our gates in its order (LSTM: input, output, forget, cell; GRU:
# update, reset, new), and what else makes it compute the same.
_OPERATORS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "RNN_TANH": ("RNN", (0,), {"activations": ["Tanh"]}),
    "RNN_RELU": ("RNN", (0,), {"activations": ["Relu"]}),
    "LSTM": ("LSTM", (0, 3, 1, 2), {}),
    "GRU": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
}


def in_graph() -> bool:
    """Return whether a forward pass is being written to an ONNX file, not computed."""
    return torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()


def node_states(layer: nn.RNNBase, x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the states (B, T, D x H) as one node, which stops at each row's length and reads it
    backwards from there.

    Only inside ``in_graph``: PyTorch computes nothing here.

    Args:
        layer: An RNN, LSTM or GRU of one layer, with biases.
        x: (B, T, F).
        lengths: (B,) int64; None: all of x. What is returned beyond them means nothing.

    Source:
        ONNX operators RNN, LSTM and GRU, onnx.ai/onnx/operators.
    """
    operator, order, attributes = _OPERATORS[layer.mode]
    directions: Sequence[Sequence[Tensor]] = layer.all_weights
    inputs, states, *biases = (
        torch.stack([_reorder(weights[kind], order) for weights in directions]) for kind in range(4)
    )
    # ONNX wants an activation for each direction.
    if "activations" in attributes:
        attributes = {"activations": attributes["activations"] * len(directions)}
    direction = "bidirectional" if len(directions) == 2 else "forward"
    (found,) = torch.onnx.ops.symbolic_multi_out(
        operator,
        (
            x.transpose(0, 1),
            inputs,
            states,
            torch.cat(biases, 1),
            None if lengths is None else lengths.int(),
        ),
        {"hidden_size": layer.hidden_size, "direction": direction, **attributes},
        dtypes=[x.dtype],
        shapes=[(x.shape[1], len(directions), x.shape[0], layer.hidden_size)],
    )
    return found.permute(2, 0, 1, 3).flatten(2)


def _reorder(weights: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return weights (G x H, ...) with their gates in another order, by operators that the graph is
    rid of again."""
    size = len(weights) // len(order)
    return torch.cat([weights[number * size : (number + 1) * size] for number in order])
