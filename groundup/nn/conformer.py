"""Frames made fewer by convolution, and the Conformer's block.

Padding is at the end of a row, and changes nothing before it.
Shape legend: B rows, T frames, O frames after subsampling, F features, C width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.attention import Attention, AttentionContext, AttentionShape
from groundup.nn.mlp import MLP
from groundup.nn.pooling import within
from groundup.nn.transformer import BlockShape

__all__ = ["ConformerBlock", "Subsampling"]

_STEP = 2
"""Each convolution leaves out every second frame."""


class Subsampling(nn.Module):
    """Convolutions over time, each of which leaves half of the frames.

    Args:
        features: F.
        width: C.
        halvings: How many convolutions leave out every second frame; 0: one that keeps all.
        kernel: Frames that each reads, an odd number.

    Source:
        Two convolutions before the blocks: Radford et al., Whisper, 2022 (arXiv:2212.04356),
        section 2.2; over time alone, where Gulati et al., 2020 (arXiv:2005.08100) convolve over
        frequencies too, which costs a CPU as much as all the blocks.
    """

    def __init__(self, features: int, width: int, halvings: int, kernel: int) -> None:
        super().__init__()
        self.halvings = halvings
        self.stride = _STEP if halvings else 1
        self.layers = nn.ModuleList()
        for number in range(max(1, halvings)):
            inputs = width if number else features
            layer = nn.Conv1d(inputs, width, kernel, self.stride, padding=kernel // 2)
            self.layers.append(layer)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def lengths(self, lengths: Tensor) -> Tensor:
        """Return how many frames (B,) are left of ``lengths``: half of them, rounded up, each
        time."""
        # Rounded up: a convolution of stride 2 gives a last frame for an odd one, too.
        for _ in range(self.halvings):
            lengths = (lengths + _STEP - 1) // _STEP
        return lengths

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, O, C) and their lengths (B,), of (B, T, F); 0 in the padding."""
        # What is in the padding must not reach the last frames of a sound.
        x = frames.masked_fill(~within(lengths, frames)[..., None], 0.0).transpose(1, 2)
        for layer in self.layers:
            x = F.gelu(layer(x))
            if self.halvings:
                lengths = (lengths + _STEP - 1) // _STEP
            # The next convolution would read what this one made of the zeros behind the end.
            x = x.masked_fill(~within(lengths, x.transpose(1, 2))[:, None], 0.0)
        return x.transpose(1, 2), lengths


class ConformerBlock(nn.Module):
    """Half an MLP, attention to the whole row, a convolution over time, and half an MLP.

    Args:
        shape: Of attention and MLPs; ``mlp_width`` is that of each of the two.
        kernel: Frames that the convolution reads, an odd number.

    Source:
        Gulati et al., 2020 (arXiv:2005.08100), section 2. Departs from it: positions are rotary,
        and the convolution is followed by a layer norm, as batch norm would let rows and padding
        change each other.
    """

    def __init__(self, shape: BlockShape, kernel: int) -> None:
        super().__init__()
        width = shape.width
        attention = AttentionShape(
            width,
            shape.heads,
            shape.kv_heads,
            shape.head_dim,
            input_bias=True,
            output_bias=True,
            causal=False,
        )
        self.first_norm = nn.LayerNorm(width)
        self.first_mlp = MLP(width, shape.mlp_width, "silu", bias=True)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(attention)
        self.convolution_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.depthwise_norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MLP(width, shape.mlp_width, "silu", bias=True)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, context: AttentionContext, inside: Tensor) -> Tensor:
        """Return (B, T, C) from x (B, T, C) and which frames are no padding (B, T)."""
        # Two half steps around attention and convolution, as a macaron has two halves.
        x = x + 0.5 * self.dropout(self.first_mlp(self.first_norm(x)))
        x = x + self.dropout(self.attention(self.attention_norm(x), context))
        x = x + self.dropout(self._convolve(self.convolution_norm(x), inside))
        x = x + 0.5 * self.dropout(self.mlp(self.mlp_norm(x)))
        return self.norm(x)  # type: ignore[no-any-return]

    def _convolve(self, x: Tensor, inside: Tensor) -> Tensor:
        gated = F.glu(self.expand(x), dim=-1)
        # A convolution reads its neighbours, and those behind the end are to be zeros.
        gated = gated.masked_fill(~inside[..., None], 0.0)
        mixed = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        return self.project(F.silu(self.depthwise_norm(mixed)))  # type: ignore[no-any-return]
