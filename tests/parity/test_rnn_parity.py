"""Recurrent layers against torch's own stacks of them, sequence by sequence without padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from groundup.models.rnn import RNNConfig

LENGTHS = torch.tensor([7, 2, 5, 1])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "gru"])
def test_same_weights_same_states(cell: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    plain = cell in ("tanh", "relu")
    kind: Any = {"lstm": nn.LSTM, "gru": nn.GRU}.get(cell, nn.RNN)
    options: dict[str, Any] = {"nonlinearity": cell} if plain else {}
    theirs = kind(3, 5, num_layers=3, batch_first=True, bidirectional=bidirectional, **options)
    sizes: dict[str, Any] = {
        "layers": 3,
        "width": 5,
        "frame_width": 3,
        "outputs": 2,
        "bidirectional": bidirectional,
    }
    chosen: dict[str, Any] = {"cell": "rnn", "activation": cell} if plain else {"cell": cell}
    model = RNNConfig(**sizes, **chosen).build()
    for name, value in theirs.state_dict().items():
        own, _, rest = name.partition("_l")
        layer, _, reverse = rest.partition("_")
        block = model.blocks[int(layer)].state_dict()
        block[f"{own}_l0{'_' + reverse if reverse else ''}"].copy_(value)
    frames = torch.randn(4, 7, 3)
    states, last = (
        model.states(inputs=frames, lengths=LENGTHS),
        model.features(inputs=frames, lengths=LENGTHS),
    )
    for row, length in enumerate(LENGTHS.tolist()):
        expected, end = theirs(frames[row : row + 1, :length])
        hidden = end[0] if cell == "lstm" else end
        torch.testing.assert_close(states[row, :length], expected[0], rtol=0, atol=1e-6)
        assert states[row, length:].abs().sum() == 0
        directions = hidden[-2:] if bidirectional else hidden[-1:]
        torch.testing.assert_close(last[row], directions[:, 0].flatten(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_weights_are_drawn_as_published(cell: Any) -> None:
    torch.manual_seed(0)
    (layer,) = RNNConfig(cell=cell, width=6, frame_width=4, outputs=2).build().blocks
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell]
    for gate in layer.weight_hh_l0.chunk(gates):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6), rtol=0, atol=1e-6)
    assert layer.weight_ih_l0.abs().max() <= (6 / 10) ** 0.5
    assert float(layer.weight_ih_l0.detach().std()) == pytest.approx((2 / 10) ** 0.5, rel=0.3)
    biases = (layer.bias_ih_l0 + layer.bias_hh_l0).chunk(gates)
    for number, bias in enumerate(biases):
        assert (bias == (1.0 if cell == "lstm" and number == 1 else 0.0)).all()
