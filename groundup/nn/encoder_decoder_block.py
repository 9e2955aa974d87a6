"""The block of a transformer that reads one sequence and writes another, and the shape of both
stacks.

Shape legend: B inputs, S positions of an input, R rows that are written (B, or a multiple of it),
    T positions, C width, G key and value heads, D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from groundup.nn.attention import Attention, AttentionContext, AttentionShape
from groundup.nn.cross_attention import CrossAttention
from groundup.nn.kv_cache import LayerCache
from groundup.nn.mlp import MLP
from groundup.nn.transformer import BlockShape, make_norm

__all__ = ["EncoderDecoderShape", "Positions", "ReadInput", "TwoStackBlock"]

Positions = Literal["rotary", "relative", "sinusoidal", "learned"]


@dataclass(frozen=True)
class EncoderDecoderShape:
    """The sizes of both stacks, and which of their parts exist.

    Attributes:
        block: Of every block; ``causal`` is each stack's own.
        layers: Blocks of the encoder.
        decoder_layers: Blocks of the decoder.
        vocabulary_size: V.
        context_length: The longest input, and the longest output.
        positions: How a token knows where it is.
        start_id: The token before every output.
        rope_theta: Base of the rotary wavelengths.
        relative: Buckets and the longest distance of relative positions.
        position_offset: Row of the first position in tables of learned positions.
        post_norm: Whether sums are normalised, and not what goes into attention and MLP.
        attention_scale: What products of queries and keys are multiplied with; None:
            ``1 / sqrt(head_dim)``.
        embedding_scale: What embeddings are multiplied with.
        embedding_norm: Whether embeddings are normalised.
        output_scale: What the last states are multiplied with.
        output_bias: Whether each token has a number that is added to its logit; it is not trained.
        tied: Whether the embedding is the output layer too.
        padding_id: A token whose embedding is not trained as an input.
        copies: Whether tokens of the input may be copied.
        source_vocabulary_size: Tokens of the inputs, where these have an embedding of their own; 0:
            they share the outputs'.
        init_std: Standard deviation of fresh weights.
    """

    block: BlockShape
    layers: int
    decoder_layers: int
    vocabulary_size: int
    context_length: int
    positions: Positions
    start_id: int = 0
    rope_theta: float = 10000.0
    relative: tuple[int, int] = (32, 128)
    position_offset: int = 0
    post_norm: bool = False
    attention_scale: float | None = None
    embedding_scale: float = 1.0
    embedding_norm: bool = False
    output_scale: float = 1.0
    output_bias: bool = False
    tied: bool = True
    padding_id: int | None = None
    copies: bool = False
    source_vocabulary_size: int = 0
    init_std: float = 0.02

    def attention(self, *, causal: bool) -> AttentionShape:
        """Return the shape of an attention layer."""
        block = self.block
        return AttentionShape(
            block.width,
            block.heads,
            block.kv_heads,
            block.head_dim,
            scale=self.attention_scale,
            input_bias=block.bias != "none",
            output_bias=block.bias == "all",
            causal=causal,
        )

    def norm(self) -> nn.Module:
        """Return a new norm."""
        return make_norm(self.block.norm, self.block.width, self.block.norm_eps)


@dataclass(frozen=True)
class ReadInput:
    """What a decoder's block sees of the inputs.

    Attributes:
        mask: (B, 1, 1, S) booleans, which positions are no padding; None: all.
        states: (B, S, C) the encoder's, or None where ``keys`` are given.
        keys: Of each of the decoder's blocks the keys and values, each (B, G, S, D).
    """

    mask: Tensor | None
    states: Tensor | None = None
    keys: tuple[tuple[Tensor, Tensor], ...] = ()


class TwoStackBlock(nn.Module):
    """Attention, in a decoder attention to the input, then the MLP, each added to the stream.

    Args:
        shape: Of the model.
        decodes: Whether it is one of the decoder's.
        last_norm: Whether what it returns is normalised, as after the last block of a pre-norm
            encoder.
    """

    def __init__(
        self, shape: EncoderDecoderShape, *, decodes: bool, last_norm: bool = False
    ) -> None:
        super().__init__()
        block = shape.block
        self.post_norm = shape.post_norm
        self.attention_norm = shape.norm()
        self.attention = Attention(shape.attention(causal=decodes))
        # Made between the two others, as it is used: optimizers keep the order of parts.
        self.cross_norm: nn.Module | None = None
        self.cross_attention: CrossAttention | None = None
        if decodes:
            self.cross_norm = shape.norm()
            self.cross_attention = CrossAttention(shape.attention(causal=False))
        self.mlp_norm = shape.norm()
        self.mlp = MLP(block.width, block.mlp_width, block.activation, block.bias == "all")
        self.last_norm = shape.norm() if last_norm else None
        self.dropout = nn.Dropout(block.dropout)

    def forward(
        self,
        x: Tensor,
        context: AttentionContext,
        source: ReadInput | None = None,
        layer: int = 0,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Return (R, T, C) from x (R, T, C).

        Args:
            x: The stream.
            context: Where its tokens are and what they see.
            source: The inputs, in a decoder.
            layer: Which of the decoder's blocks it is.
            cache: Its keys and values of what was written before.
        """
        x = self._add(x, self.attention_norm, lambda y: self.attention(y, context, cache))
        if self.cross_attention is not None and self.cross_norm is not None:
            assert source is not None
            cross = self.cross_attention
            # In training each block reads the states itself; in decoding this was done once.
            read = source.keys[layer] if source.states is None else cross.read(source.states)
            x = self._add(x, self.cross_norm, lambda y: cross(y, read, source.mask))
        x = self._add(x, self.mlp_norm, self.mlp)
        return x if self.last_norm is None else self.last_norm(x)

    def weights_of_input(self, x: Tensor, context: AttentionContext, keys: Tensor) -> Tensor:
        """Return how much a decoder's stream x (B, T, C) attends to each position of the input, by
        its keys (B, G, S, D): (B, H, T, S)."""
        assert self.cross_attention is not None
        assert self.cross_norm is not None
        x = self._add(x, self.attention_norm, lambda y: self.attention(y, context))
        if not self.post_norm:
            x = self.cross_norm(x)
        return self.cross_attention.weights(x, keys)

    def _add(self, x: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        if self.post_norm:
            return norm(x + self.dropout(part(x)))  # type: ignore[no-any-return]
        return x + self.dropout(part(norm(x)))  # type: ignore[no-any-return]
