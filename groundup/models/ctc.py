"""Speech to text frame by frame: convolutions that leave out frames, blocks of one of three kinds,
and a token or the blank for each frame that is left.

Shape legend: B sounds, T frames, O frames after subsampling, F features, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.contracts.speech import ReadsSpeech
from groundup.core.errors import RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_from_data import settle_size
from groundup.nn.attention import AttentionContext
from groundup.nn.conformer import ConformerBlock, Subsampling
from groundup.nn.like_lengths import PASS_OF_SOUNDS, PASS_ON_GPU, group_like_lengths
from groundup.nn.mlp import default_width
from groundup.nn.pooling import within
from groundup.nn.recurrent_nodes import in_graph, node_states
from groundup.nn.rope import check_rotary, rotary_angles
from groundup.nn.transformer import Block, BlockShape, check_heads

__all__ = ["CTC", "CTCConfig"]

_ATTENTION = {"blocks": ("transformer", "conformer")}
_ROPE_THETA = 10000.0
_GATES = 4


@model("ctc")
class CTCConfig(ModelConfig):
    """Subsampling, blocks, and logits of tokens and the blank for every few frames of a sound."""

    blocks: Literal["bilstm", "transformer", "conformer"] = setting(
        "conformer",
        "What reads the frames: LSTMs of both directions, which learn quickest from little data,"
        " attention, or attention and convolution",
    )
    layers: int = setting(4, "Blocks, one on top of the other", ge=1)
    width: int = setting(144, "Channels of a frame; of an LSTM half of them each direction", ge=2)
    heads: int = setting(4, "Attention heads", ge=1, applies_when=_ATTENTION)
    mlp_width: int | None = setting(
        None, "Inner width of an MLP; null: 4 x width", ge=1, applies_when=_ATTENTION
    )
    kernel: int = setting(
        15,
        "Frames that a block's convolution reads, an odd number",
        ge=1,
        applies_when={"blocks": ("conformer",)},
    )
    subsampling: Literal[1, 2, 4, 8] = setting(
        4,
        "One frame is kept of so many: the more, the quicker; but a transcript of more tokens than"
        " frames are left cannot be learned",
    )
    subsampling_kernel: int = setting(
        5, "Frames that each convolution of the subsampling reads, an odd number", ge=1
    )
    dropout: float = setting(
        0.1, "Share of what each part of a block adds, dropped in training", ge=0, lt=1
    )
    frame_width: int = setting(0, "Features of a frame; 0: as the data has", ge=0)
    vocabulary_size: int = setting(0, "Tokens without the blank; 0: the processor's", ge=0)

    @model_validator(mode="after")
    def _shape_is_possible(self) -> CTCConfig:
        for name in ("kernel", "subsampling_kernel"):
            size = dict(self)[name]
            # A window of an even number of frames has no frame in its middle.
            if size % 2 == 0:
                raise ValueError(f"{name} {size} is even. Use {size + 1}")
        if self.blocks == "bilstm" and self.width % 2:
            raise ValueError(
                f"width {self.width} is odd, but each direction has half of it."
                f" Use {self.width + 1}"
            )
        if self.blocks != "bilstm":
            check_heads(self.width, self.heads)
            check_rotary("rotary", self.width // self.heads)
        return self

    @property
    def halvings(self) -> int:
        """How often the subsampling leaves out every second frame."""
        return self.subsampling.bit_length() - 1

    def complete_from(self, processor: Processor) -> CTCConfig:
        """Return the config with the data's sizes where they were 0.

        Raises:
            RecipeError: If the processor reads no speech, or the sizes differ.
        """
        if not isinstance(processor, ReadsSpeech):
            raise RecipeError(
                "recipe.processor",
                "makes no frames with transcripts, which model ctc reads",
                "Choose processor: speech",
            )
        frames = settle_size("frame_width", self.frame_width, processor.input_shape[-1])
        tokens = processor.tokenizer.vocabulary_size
        size = settle_size("vocabulary_size", self.vocabulary_size, tokens)
        return self.model_copy(update={"frame_width": frames, "vocabulary_size": size})

    def shape(self) -> BlockShape:
        """Return the shape of a block with attention."""
        return BlockShape(
            self.width,
            self.heads,
            self.heads,
            self.width // self.heads,
            self.mlp_width or default_width(self.width, "silu"),
            activation="silu",
            norm="layernorm",
            norm_eps=1e-5,
            bias="all",
            dropout=self.dropout,
            causal=False,
        )

    def build(self) -> CTC:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If a size is still unknown.
        """
        if not self.frame_width or not self.vocabulary_size:
            raise RecipeError(
                "recipe.model",
                "frame_width or vocabulary_size is 0, but no data has filled it in",
                "Give both",
            )
        return CTC(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one frame of a sound of ``context`` frames, forward and backward: 6 a
        weight, and attention."""
        return self.trained_flops_per_token(context, None)

    def trained_flops_per_token(self, context: int, layers: int | None) -> float:
        """Return these where only the last ``layers`` blocks and the head are trained; what comes
        before is computed forwards alone, a third of its work."""
        stem = 0.0
        kept = 1.0
        # Each convolution is computed for the frames that it leaves.
        for number in range(max(1, self.halvings)):
            kept /= 2 if self.halvings else 1
            inputs = self.width if number else self.frame_width
            stem += 6.0 * kept * inputs * self.width * self.subsampling_kernel
        block = self.shape().flops_per_token(context * kept)
        if self.blocks == "bilstm":
            half = self.width // 2
            block = 6.0 * 2 * _GATES * half * (self.width + half)
        elif self.blocks == "conformer":
            # The shape counts one MLP; a Conformer's block has another, and three projections.
            second_mlp = 2 * self.width * self.shape().mlp_width
            convolution = 3 * self.width**2 + self.width * self.kernel
            block += 6.0 * (second_mlp + convolution)
        head = 6.0 * self.width * (self.vocabulary_size + 1)
        if layers is None:
            return stem + kept * (self.layers * block + head)
        found = stem / 3 + kept * (((self.layers - layers) / 3 + layers) * block + head)
        if self.blocks == "bilstm" and layers:
            # The lowest one is given numbers that get no gradient; others begin with a norm.
            found -= kept * 2.0 * _GATES * self.width**2
        return found

    @classmethod
    def sizes(cls) -> Mapping[str, CTCConfig]:
        """Return the named sizes."""
        return {name: cls(**values) for name, values in _SIZES.items()}


class CTC(nn.Module):
    """The model of a ``CTCConfig``.

    Source:
        Graves et al., 2006, "Connectionist temporal classification"; LSTMs of both directions:
        Graves, Mohamed and Hinton, 2013 (arXiv:1303.5778); attention: Vaswani et al., 2017
        (arXiv:1706.03762), with rotary positions; Conformer: Gulati et al., 2020
        (arXiv:2005.08100).
    """

    def __init__(self, config: CTCConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = Subsampling(
            config.frame_width, width, config.halvings, config.subsampling_kernel
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_make_block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.vocabulary_size + 1)
        _initialise(self.blocks)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def blank_id(self) -> int:
        """The symbol that stands for no token: the last one."""
        return self.config.vocabulary_size

    @property
    def reach(self) -> int:
        """How many frames one frame of the output stands for."""
        return self.config.subsampling

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return how many frames of the output (B,) belong to sounds of ``lengths`` frames."""
        return self.embed.lengths(lengths)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return logits (B, O, V + 1), the blank's last.

        Args:
            inputs: (B, T, F) frames.
            lengths: (B,) int64, what of each row is no padding, at least 1; default: all. What is
                in the padding changes nothing before it, and what is returned there means nothing.
        """
        if lengths is None:
            lengths = torch.full((len(inputs),), inputs.shape[1], device=inputs.device)
        # A graph has no branches that depend on numbers, nor a number of rows.
        if torch.compiler.is_compiling():
            return self._logits(inputs, lengths)
        groups = self._groups(lengths)
        if len(groups) == 1:
            return self._logits(inputs, lengths)
        # Sounds of like lengths together, then put below each other in the order they came in.
        longest = int(self.output_lengths(torch.tensor([inputs.shape[1]]))[0])
        parts = []
        for group in groups:
            own = lengths[group]
            found = self._logits(inputs[group, : int(own.max())], own)
            parts.append(F.pad(found, (0, 0, 0, longest - found.shape[1])))
        return torch.cat(parts)[torch.cat(groups).argsort()]

    def _groups(self, lengths: Tensor) -> list[Tensor]:
        """Return the numbers of the rows that are computed together: a function of their lengths
        alone, so that a resumed run computes the same."""
        cost = PASS_OF_SOUNDS if lengths.device.type == "cpu" else PASS_ON_GPU
        kept = self.output_lengths(lengths).cpu().numpy()
        groups = group_like_lengths((kept,), cost)
        return [torch.from_numpy(group).to(lengths.device) for group in groups]

    def _logits(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        # Lengths go along: what is padding is as much a part of the input as the frames.
        x, kept = self.embed(inputs, lengths)
        inside = within(kept, x)
        x = self.dropout(x)
        if self.config.blocks == "bilstm":
            x = self._recur(x, kept)
        else:
            context = self._context(x, inside)
            for block in self.blocks:
                x = block(x, context, inside) if self._convolves else block(x, context)
        return self.head(self.norm(x))  # type: ignore[no-any-return]

    @property
    def _convolves(self) -> bool:
        return self.config.blocks == "conformer"

    def _context(self, x: Tensor, inside: Tensor) -> AttentionContext:
        # Positions are those of the frames that are left, of which attention sees all.
        places = torch.arange(x.shape[1], device=x.device)[None]
        dim = self.config.width // self.config.heads
        # As fine as the model, where it is a reference to compare with.
        wide = x.dtype == torch.float64
        rotary = rotary_angles(places, dim, _ROPE_THETA, wide=wide)
        return AttentionContext(rotary, mask=inside[:, None, None])

    def _recur(self, x: Tensor, lengths: Tensor) -> Tensor:
        # ONNX has no packed sequences, but its operators take lengths.
        if in_graph():
            for block in self.blocks:
                assert isinstance(block, nn.LSTM)
                x = node_states(block, x, lengths)
            return x
        # Packed, so that the direction that reads backwards begins at each row's own end. PyTorch
        # wants the lengths on the CPU.
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        for number, block in enumerate(self.blocks):
            # Between layers only: dropout in time would erase what is remembered.
            if number:
                packed = PackedSequence(self.dropout(packed.data), *packed[1:])
            packed = block(packed)[0]
        return pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])[0]


def _make_block(config: CTCConfig) -> nn.Module:
    if config.blocks == "bilstm":
        return nn.LSTM(config.width, config.width // 2, batch_first=True, bidirectional=True)
    if config.blocks == "conformer":
        return ConformerBlock(config.shape(), config.kernel)
    return Block(config.shape())


@torch.no_grad()
def _initialise(blocks: nn.ModuleList) -> None:
    """Draw matrices from Glorot's uniform distribution, of an LSTM gate by gate and orthogonal from
    state to state; biases are 0, but 1 for the gates by which an LSTM forgets.

    Source:
        Glorot and Bengio, 2010, equation 16; Saxe et al., 2013 (arXiv:1312.6120); Jozefowicz et
        al., 2015, "An empirical exploration of recurrent network architectures", section 2.2.
    """
    for block in blocks:
        recurrent = isinstance(block, nn.LSTM)
        for name, parameter in block.named_parameters():
            if parameter.ndim == 1:
                # The weight of a norm stays 1.
                if "bias" in name:
                    nn.init.zeros_(parameter)
                if recurrent and name.startswith("bias_ih"):
                    # The second of four gates: it begins open, so that gradients reach far back.
                    size = len(parameter) // _GATES
                    parameter[size : 2 * size] = 1.0
                continue
            for gate in parameter.chunk(_GATES) if recurrent else (parameter,):
                if name.startswith("weight_hh"):
                    nn.init.orthogonal_(gate)
                else:
                    nn.init.xavier_uniform_(gate)


# The first two are for small data. The others have the blocks of the Conformer's table 1, but the
# subsampling and the head of this file in place of its own.
_SIZES: dict[str, dict[str, Any]] = {
    "nano": {"blocks": "bilstm", "layers": 1, "width": 96},
    "micro": {"blocks": "bilstm", "layers": 3, "width": 256, "dropout": 0.2},
    "small": {"layers": 16, "width": 144, "heads": 4, "kernel": 31},
    "medium": {"layers": 16, "width": 256, "heads": 4, "kernel": 31},
    "large": {"layers": 17, "width": 512, "heads": 8, "kernel": 31},
}
