"""Recurrent networks over tokens or frames: plain, LSTM and GRU, one direction or both.

Shape legend: B sequences, T positions, F numbers in a frame, C channels, O outputs.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.core.errors import RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_from_data import Elements, elements_of, settle_size
from groundup.nn.activations import initialise_linear
from groundup.nn.pooling import AttentionPooling, last_state, mean_state, within
from groundup.nn.recurrent_nodes import in_graph, node_states

__all__ = ["RNN", "RNNConfig"]

_CLASSES: dict[str, type[nn.RNN | nn.LSTM | nn.GRU]] = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "lstm": nn.LSTM,
}
_GATES = {"rnn": 1, "gru": 3, "lstm": 4}


@model("rnn")
class RNNConfig(ModelConfig):
    """Recurrent layers, then pooling over time and a linear output. The sizes of what is read come
    from the data."""

    cell: Literal["rnn", "lstm", "gru"] = setting(
        "lstm", "Plain recurrence, or with the gates of LSTM or GRU"
    )
    activation: Literal["tanh", "relu"] = setting(
        "tanh", "Of the plain recurrence", applies_when={"cell": ("rnn",)}
    )
    layers: int = setting(1, "Recurrent layers, one on top of the other", ge=1)
    width: int = setting(128, "Channels of the state, of each direction", ge=1)
    bidirectional: bool = setting(False, "Read from both ends, and put both states side by side")
    pooling: Literal["last", "mean", "attention"] = setting(
        "last",
        "What the output reads: the last state (of each direction), the mean, or a learned weighted"
        " mean",
    )
    dropout: float = setting(
        0.0,
        "Share of what the layers pass to the next one and to the output, dropped in training",
        ge=0,
        lt=1,
    )
    embedding_width: int = setting(128, "Learned numbers of a token; frames have none", ge=1)
    vocabulary_size: int = setting(0, "Tokens in the vocabulary; 0: as the data has", ge=0)
    frame_width: int = setting(0, "Numbers in one frame; 0: as the data has", ge=0)
    outputs: int = setting(0, "Outputs; 0: as many as the data has classes or targets", ge=0)

    def complete_from(self, processor: Processor) -> RNNConfig:
        """Return the config with the data's sizes where they were 0.

        Raises:
            RecipeError: If the processor makes neither tokens nor frames, or the sizes differ.
        """
        elements, processor = elements_of(
            "rnn", processor, Elements(self.vocabulary_size, self.frame_width)
        )
        outputs = settle_size("outputs", self.outputs, processor.outputs)
        return self.model_copy(update=elements._asdict() | {"outputs": outputs})

    def build(self) -> RNN:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If a size is still unknown.
        """
        # Tokens or frames: which of them, the data says.
        if not (self.vocabulary_size or self.frame_width) or not self.outputs:
            raise RecipeError(
                "recipe.model",
                "vocabulary_size and frame_width, or outputs, are 0, but no data has filled them"
                " in",
                "Give one of the two and outputs",
            )
        return RNN(self)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers that go into each layer, and out of the last."""
        first = self.embedding_width if self.vocabulary_size else self.frame_width
        return (first, *[self.width * self.directions] * self.layers)

    @property
    def directions(self) -> int:
        """In how many directions a layer reads."""
        return 1 + self.bidirectional

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one token or frame, forward and backward: 6 a weight used in
        products.

        A sequence costs ``context`` times as much; what the pooling and the output cost is spread
        over it.
        """
        gates = self.directions * _GATES[self.cell]
        weights: float = sum(
            gates * self.width * (inputs + self.width) for inputs in self.widths[:-1]
        )
        last = self.widths[-1]
        if self.pooling == "attention":
            weights += last * (last + 1)
        return 6.0 * (weights + last * self.outputs / max(context, 1))


class RNN(nn.Module):
    """The model of an ``RNNConfig``. ``blocks`` holds one recurrent layer each.

    Source:
        Elman, 1990, "Finding structure in time"; LSTM: Hochreiter and Schmidhuber, 1997, with the
        forget gate of Gers et al., 2000; GRU: Cho et al., 2014 (arXiv:1406.1078), in the form of
        PyTorch; both directions: Schuster and Paliwal, 1997. Dropout between layers, never in time:
        Zaremba et al., 2014 (arXiv:1409.2329).
    """

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.state_width = config.widths[-1]
        self.bidirectional = config.bidirectional
        self.embed: nn.Embedding | None = None
        if config.vocabulary_size:
            self.embed = nn.Embedding(config.vocabulary_size, config.embedding_width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_layer(config, inputs) for inputs in config.widths[:-1])
        self.pool: AttentionPooling | None = None
        if config.pooling == "attention":
            self.pool = AttentionPooling(config.widths[-1])
        self.head = nn.Linear(config.widths[-1], config.outputs)
        initialise_linear(self.head, "sigmoid")

    def states(
        self,
        tokens: Tensor | None = None,
        inputs: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Return the last layer's states (B, T, C), 0 in the padding. Arguments as in ``forward``;
        the layers run over packed sequences, so that padding is never read."""
        x = self.embed(tokens) if self.embed is not None else inputs
        assert x is not None
        # ONNX has no packed sequences, but its operators take lengths.
        if in_graph():
            for block in self.blocks:
                assert isinstance(block, nn.RNNBase)
                x = node_states(block, x, lengths)
            return x
        if lengths is None:
            lengths = torch.full((len(x),), x.shape[1])
        # PyTorch wants the lengths on the CPU, wherever x is.
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        for number, block in enumerate(self.blocks):
            # Between layers only: dropout in time would erase what is remembered.
            if number:
                packed = PackedSequence(self.dropout(packed.data), *packed[1:])
            packed = block(packed)[0]
        return pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])[0]

    def features(
        self,
        tokens: Tensor | None = None,
        inputs: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Return what the output layer reads, (B, C). Arguments as in ``forward``."""
        x = self.states(tokens, inputs, lengths)
        inside = within(lengths, x)
        if self.pool is not None:
            return self.pool(x, inside)  # type: ignore[no-any-return]
        if self.pooling == "mean":
            return mean_state(x, inside)
        if not self.bidirectional:
            return last_state(x, inside)
        # The last state of the direction that reads backwards is that at the first position.
        forward, backward = x.chunk(2, -1)
        return torch.cat((last_state(forward, inside), backward[:, 0]), -1)

    def forward(
        self,
        tokens: Tensor | None = None,
        inputs: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Return (B, O).

        Args:
            tokens: (B, T) int64; or
            inputs: (B, T, F) frames.
            lengths: (B,) int64, what of each row is no padding, at least 1; default: all.
        """
        return self.head(self.dropout(self.features(tokens, inputs, lengths)))  # type: ignore[no-any-return]


def _layer(config: RNNConfig, inputs: int) -> nn.Module:
    options: dict[str, Any] = {"batch_first": True, "bidirectional": config.bidirectional}
    # LSTM and GRU have fixed non-linearities.
    if config.cell == "rnn":
        options["nonlinearity"] = config.activation
    layer = _CLASSES[config.cell](inputs, config.width, **options)
    _initialise(layer, config)
    return layer


@torch.no_grad()
def _initialise(layer: nn.Module, config: RNNConfig) -> None:
    """Draw the weights of each gate by itself: orthogonal from state to state, Glorot's from the
    inputs.

    Biases are 0, but 1 for the forget gate of an LSTM, the second of its four.

    Source:
        Saxe et al., 2013 (arXiv:1312.6120); Glorot and Bengio, 2010, equation 16; Jozefowicz et
        al., 2015, "An empirical exploration of recurrent network architectures", section 2.2.
    """
    for name, parameter in layer.named_parameters():
        if parameter.ndim == 1:
            nn.init.zeros_(parameter)
            if config.cell == "lstm" and name.startswith("bias_ih"):
                # The forget gate begins open, so that early gradients reach far back.
                parameter[config.width : 2 * config.width] = 1.0
            continue
        # Gates are stacked in one matrix; drawn as one, it would be orthogonal as a whole only.
        for gate in parameter.chunk(_GATES[config.cell]):
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(gate)
            else:
                nn.init.xavier_uniform_(gate)
