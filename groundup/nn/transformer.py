"""The block of a transformer, and the language model that stacks such blocks.

Read from top to bottom: the shape of a block, the block, what a family of decoders brings, the
model.

Shape legend: B rows, T positions, C width, V vocabulary, N boundaries, M chosen positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from groundup.nn.attention import (
    Attention,
    AttentionContext,
    AttentionShape,
    Passage,
    token_positions,
)
from groundup.nn.kv_cache import KeyValueCache, LayerCache
from groundup.nn.logits import cap_logits, output_logits
from groundup.nn.loss import linear_cross_entropy, linear_cross_entropy_sum, linear_log_probs
from groundup.nn.mlp import MLP, AnyActivation
from groundup.nn.norm import RMSNorm

__all__ = [
    "Bias",
    "Block",
    "BlockShape",
    "DecoderLM",
    "DecoderParts",
    "DecoderSettings",
    "Norm",
    "check_heads",
    "initialise_transformer",
    "make_norm",
]

Bias = Literal["none", "qkv", "all"]
Norm = Literal["rmsnorm", "layernorm"]


@dataclass(frozen=True)
class BlockShape:
    """The sizes of one block, and which of its parts exist."""

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    activation: AnyActivation = "swiglu"
    norm: Norm = "rmsnorm"
    norm_eps: float = 1e-6
    bias: Bias = "none"
    qk_norm: bool = False
    window: int | None = None
    dropout: float = 0.0
    causal: bool = True

    def matmul_parameters(self) -> int:
        """Return how many weights a token is multiplied with."""
        # Queries and the output have as many columns as there are heads, keys and values fewer.
        attention = 2 * self.width * self.head_dim * (self.heads + self.kv_heads)
        # Gated activations have a third matrix.
        matrices = 3 if self.activation in ("swiglu", "geglu_tanh") else 2
        return attention + matrices * self.width * self.mlp_width

    def flops_per_token(self, seen: float) -> float:
        """Return the FLOPs of forward and backward for a token that sees ``seen`` tokens.

        A weight costs one multiplication and one addition forward and twice that backward: 6 FLOPs.
        In attention, a token is multiplied with the keys and the values of the tokens it sees: 2
        products x 6 x seen x heads x head_dim.
        """
        return 6.0 * self.matmul_parameters() + 12.0 * self.heads * self.head_dim * seen


def check_heads(
    width: int, heads: int, kv_heads: int | None = None, head_dim: int | None = None
) -> None:
    """Check that a width can be shared out among heads, and the heads among key and value heads.

    Raises:
        ValueError: If not; the message gives the nearest number that can.
    """
    if head_dim is None and width % heads:
        # The message proposes a number that works.
        nearest = max(width // heads, 1) * heads
        raise ValueError(
            f"width {width} is not a multiple of heads {heads}. Use width {nearest} or change heads"
        )
    if kv_heads is not None and heads % kv_heads:
        nearest = max(n for n in range(1, kv_heads + 1) if heads % n == 0)
        raise ValueError(
            f"heads {heads} is not a multiple of kv_heads {kv_heads}."
            f" Use kv_heads {nearest} or change heads"
        )


def make_norm(kind: Norm, width: int, eps: float) -> RMSNorm | nn.LayerNorm:
    """Return a norm over the last dimension."""
    return RMSNorm(width, eps) if kind == "rmsnorm" else nn.LayerNorm(width, eps)


class Block(nn.Module):
    """Attention, then the MLP, each on a normalised input and added to the residual stream
    (pre-norm)."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        attention = AttentionShape(
            shape.width,
            shape.heads,
            shape.kv_heads,
            shape.head_dim,
            qk_norm_eps=shape.norm_eps if shape.qk_norm else None,
            window=shape.window,
            input_bias=shape.bias != "none",
            output_bias=shape.bias == "all",
            causal=shape.causal,
        )
        self.attention_norm = make_norm(shape.norm, shape.width, shape.norm_eps)
        self.attention = Attention(attention)
        self.mlp_norm = make_norm(shape.norm, shape.width, shape.norm_eps)
        self.mlp = MLP(shape.width, shape.mlp_width, shape.activation, shape.bias == "all")
        self.dropout = nn.Dropout(shape.dropout)

    def forward(
        self, x: Tensor, context: AttentionContext, cache: LayerCache | None = None
    ) -> Tensor:
        """Return (B, T, C) from x (B, T, C)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), context, cache))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))  # type: ignore[no-any-return]


@torch.no_grad()
def initialise_transformer(
    model: nn.Module,
    std: float,
    layers: int | None = None,
    *,
    norm_weight: float = 1.0,
    vectors: Sequence[str] = (),
) -> None:
    """Draw all weights again: matrices normal, biases 0, norms without effect.

    Args:
        model: Its parameters are drawn in the order of their names.
        std: The standard deviation.
        layers: Where a layer adds to the residual stream, ``std`` is divided by sqrt(2 layers), so
            that the stream does not grow with the depth; None: it is not. Source: Radford et al.,
            GPT-2, 2019, section 2.3.
        norm_weight: Of a norm without effect; 0 where 1 is added to it.
        vectors: Names of one-dimensional parameters that are drawn like matrices.
    """
    # Two layers of each block add to the stream: attention's output and the MLP's.
    residual = std / math.sqrt(2 * layers) if layers else std
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 or name in vectors:
            # Told by name, so that a wrapped or adapted model is drawn alike.
            adds = name.endswith(("attention.output.weight", "mlp.down.weight"))
            nn.init.normal_(parameter, std=residual if adds else std)
        else:
            nn.init.constant_(parameter, norm_weight if name.endswith("norm.weight") else 0.0)


# ------------------------------------------------------------------------------ the language model
class DecoderSettings(Protocol):
    """What ``DecoderLM`` reads of the settings of a family."""

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def embedding_rows(self) -> int: ...

    @property
    def context_length(self) -> int: ...

    @property
    def layers(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def dropout(self) -> float: ...

    @property
    def init_std(self) -> float: ...


@dataclass(frozen=True)
class DecoderParts:
    """What one family of decoders has in a way of its own.

    Attributes:
        block: Returns the block of a layer, counted from 0.
        norm: Returns the norm after the last block.
        contexts: Returns for each layer where the tokens of a passage are and what they see.
        cache_shape: Key and value heads, and the channels of each.
        tied: Whether the embedding is the output layer too.
        learned_positions: Whether each position has a learned vector, added to the embedding.
        embedding_scale: What the embedding is multiplied with.
        logit_cap: Logits are bent to be between minus and plus this; None: they are not.
        norm_weight: Of a fresh norm: 1, or 0 where 1 is added to it.
        scaled_residual: Whether layers that add to the residual stream begin smaller in a deeper
            model.
        decoder: Returns what decodes one row quickly with the same weights; None: nothing does.
        outgrown: As ``KeyValueCache.outgrown``.
    """

    block: Callable[[int], nn.Module]
    norm: Callable[[], nn.Module]
    contexts: Callable[[Passage], Sequence[AttentionContext]]
    cache_shape: tuple[int, int]
    tied: bool = True
    learned_positions: bool = False
    embedding_scale: float | None = None
    logit_cap: float | None = None
    norm_weight: float = 1.0
    scaled_residual: bool = True
    decoder: Callable[[nn.Module], nn.Module] | None = None
    outgrown: Callable[[int, int], bool] = lambda read, length: False


class DecoderLM(nn.Module):
    """A decoder-only language model: the embedding, blocks, a norm, and the output layer.

    Args:
        config: The settings of its family.
        parts: What the family has in a way of its own.
    """

    def __init__(self, config: DecoderSettings, parts: DecoderParts) -> None:
        super().__init__()
        self.config = config
        self.parts = parts
        # The order in which parts are made is that of the random draws, and of the optimizer's
        # state: it must not change.
        rows, width = config.embedding_rows, config.width
        self.embed = nn.Embedding(rows, width)
        self.positions: nn.Embedding | None = None
        if parts.learned_positions:
            self.positions = nn.Embedding(config.context_length, width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(parts.block(layer) for layer in range(config.layers))
        self.norm = parts.norm()
        self.head = None if parts.tied else nn.Linear(width, rows, bias=False)
        self.initialise()

    def initialise(self) -> None:
        """Draw all weights again: normal with ``init_std``, norms without effect."""
        layers = self.config.layers if self.parts.scaled_residual else None
        initialise_transformer(
            self, self.config.init_std, layers, norm_weight=self.parts.norm_weight
        )

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
        targets: Tensor | None = None,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Predict the next token at every position.

        Args:
            tokens: (B, T) int64.
            positions: (B, T) int64, within each document; default 0 .. T-1, or what follows the
                cache. With a cache, -1 marks padding on the left.
            boundaries: (N,) int32, starts of packed documents over the B*T tokens, rising from 0 to
                B*T; default: each row is one document. A token sees earlier tokens of its own
                document only.
            targets: (B, T) int64, the tokens that come next, -100 where nothing is trained.
            cache: Keys and values of what was read before; this call adds to it.
            last_only: Return logits of the last position only.

        Returns:
            Without targets the logits (B, T or 1, V). With targets a scalar: the sum of -log p in
            nats over the targets in float32 (float64 in a float64 model). Its softmax runs over the
            padded embedding.
        """
        x = self.hidden(tokens, positions, boundaries, cache)
        if targets is None:
            return self.logits_from(x[:, -1:] if last_only else x)
        cap = self.parts.logit_cap
        return linear_cross_entropy_sum(x.flatten(0, 1), self.output_weight, targets.flatten(), cap)

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return what the output layer reads, (B, T, C). Arguments as in ``forward``."""
        positions = token_positions(tokens, positions, boundaries, cache)
        # A float64 model is a reference to compare with: its angles must be as fine.
        wide = self._float_weight().dtype == torch.float64
        contexts = self.parts.contexts(Passage(tokens, positions, boundaries, cache, wide))
        x = self.embed(tokens)
        if self.parts.embedding_scale is not None:
            # Gemma's: without it, embeddings would be small next to what blocks add.
            x = x * self.parts.embedding_scale
        if self.positions is not None:
            # Padding on the left has position -1, and needs some row of the table.
            x = x + self.positions(positions.clamp(min=0))
        x = self.dropout(x)
        for layer, (block, context) in enumerate(zip(self.blocks, contexts, strict=True)):
            if cache is None:
                x = block(x, context)
            else:
                # Past nn.Module.compile: the shapes of decoding change at every step. Not past
                # what gathers a block's parameters, as ``forward`` would be.
                x = block._call_impl(x, context, cache.layers[layer])  # type: ignore[no-untyped-call]
        return self.norm(x)  # type: ignore[no-any-return]

    def logits_from(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) from hidden states (..., C)."""
        logits = cap_logits(output_logits(hidden, self.output_weight), self.parts.logit_cap)
        # Padding of the embedding is never predicted.
        return logits[..., : self.config.vocabulary_size]

    def log_probs_from(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return log p in nats of targets (M,) from hidden states (M, C)."""
        return linear_log_probs(hidden, self.output_weight, targets, self.parts.logit_cap)

    def token_losses(
        self,
        tokens: Tensor,
        targets: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
    ) -> Tensor:
        """Return -log p in nats of each target, (B, T), 0 where it is -100. For evaluation: no
        gradient."""
        # Evaluation keeps nothing for a backward pass, whoever calls it.
        with torch.no_grad():
            x = self.hidden(tokens, positions, boundaries).flatten(0, 1)
        cap = self.parts.logit_cap
        losses = linear_cross_entropy(x, self.output_weight, targets.flatten(), cap)
        return losses.view_as(targets)

    def new_cache(self, batch: int, length: int) -> KeyValueCache:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""
        heads, dim = self.parts.cache_shape
        like = self._float_weight()
        shape = (batch, heads, length, dim)
        outgrown = self.parts.outgrown
        return KeyValueCache(self.config.layers, shape, like.dtype, like.device, outgrown)

    @property
    def has_decoder(self) -> bool:
        """Whether there is a quicker step for one row on a CPU."""
        return self.parts.decoder is not None

    def decoder(self) -> nn.Module:
        """Return what decodes one row quickly, with the same weights."""
        assert self.parts.decoder is not None
        return self.parts.decoder(self)

    def parameter_count(self) -> int:
        """Return how many numbers are trained, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def output_weight(self) -> Tensor:
        """The output layer's weight, (V padded, C)."""
        return self.embed.weight if self.head is None else self.head.weight

    def separate_head(self) -> None:
        """Give the model an output layer of its own with the embedding's numbers, if it has
        none."""
        if self.head is None:
            weight = self.embed.weight.detach().clone()
            self.head = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            self.head.weight = nn.Parameter(weight, requires_grad=False)

    def share_head(self) -> None:
        """Take that away again."""
        if self.parts.tied:
            self.head = None

    def _float_weight(self) -> Tensor:
        """Return a norm's weight: it stays a float where matrices become integers."""
        return next(self.norm.parameters())
