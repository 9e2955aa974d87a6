"""Parts of an encoder that sees the whole text: its block, and the head that predicts tokens.

Shape legend: B rows, T positions, C width, V vocabulary, N boundaries.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.attention import Attention, AttentionContext, AttentionShape
from groundup.nn.logits import output_logits
from groundup.nn.mlp import MLP
from groundup.nn.transformer import BlockShape

__all__ = ["MaskedHead", "PostNormBlock", "same_document"]


class PostNormBlock(nn.Module):
    """Attention to the whole text, then the MLP, each added to its input, and the sum normalised
    (post-norm)."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        attention = AttentionShape(
            shape.width,
            shape.heads,
            shape.kv_heads,
            shape.head_dim,
            input_bias=True,
            output_bias=True,
            causal=False,
        )
        self.attention = Attention(attention)
        self.attention_norm = nn.LayerNorm(shape.width, shape.norm_eps)
        self.mlp = MLP(shape.width, shape.mlp_width, shape.activation, bias=True)
        self.mlp_norm = nn.LayerNorm(shape.width, shape.norm_eps)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """Return (B, T, C) from x (B, T, C)."""
        x = self.attention_norm(x + self.dropout(self.attention(x, context)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))  # type: ignore[no-any-return]


class MaskedHead(nn.Module):
    """What predicts tokens from states: a layer, a norm, and the embedding as the output layer,
    with a bias of its own.

    Source:
        Devlin et al., 2018 (arXiv:1810.04805), section 3.1, task 1; the layer before the output as
        in the authors' code. Tied embeddings: Press and Wolf, 2016 (arXiv:1608.05859), section 3.
    """

    def __init__(self, vocabulary_size: int, shape: BlockShape) -> None:
        super().__init__()
        self.transform = nn.Linear(shape.width, shape.width)
        self.norm = nn.LayerNorm(shape.width, shape.norm_eps)
        self.bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.approximate = "tanh" if shape.activation == "gelu_tanh" else "none"

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return logits (..., V) of states x (..., C) by the embedding (V, C)."""
        x = F.gelu(self.transform(x), approximate=self.approximate)
        return output_logits(self.norm(x), embedding, self.bias)


def same_document(tokens: Tensor, boundaries: Tensor) -> Tensor:
    """Return which tokens (B, T) of packed documents see each other, (B, 1, T, T): those of one.

    Args:
        tokens: (B, T) int64.
        boundaries: (N,) int32, starts of documents over the B*T tokens, from 0 to B*T.
    """
    # The number of a token's document is how many have begun up to it.
    starts = torch.zeros(tokens.numel() + 1, dtype=torch.int64, device=tokens.device)
    starts.index_add_(0, boundaries.long(), torch.ones_like(boundaries, dtype=torch.int64))
    document = starts[:-1].cumsum(0).view_as(tokens)
    same: Tensor = document[:, :, None] == document[:, None]
    return same[:, None]
