"""One token through a GPT at a time: what its ``forward`` computes with a cache, in a third of the
operations.

With one row, a decoding step reads every weight once and computes next to nothing, so what it costs
beyond that is the number of operations, about 5 us each. Here query, key and value are one product,
gate and up another, the one query of a group of heads needs no mask, and no module is called. The
weights are those of the model: it shares their memory.

Shape legend: C width, H heads, G key and value heads, R heads of a group, D head dimension, S slots
    in use, V
vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.generation.products import join_products, norm_product, output_product
from groundup.nn.kv_cache import KeyValueCache, LayerCache
from groundup.nn.rope import rotary_angles

__all__ = ["FastDecoder"]

Rotary = tuple[Tensor, Tensor]


class FastDecoder(nn.Module):
    """A GPT that decodes one row quickly; more rows, or more tokens at once, go through its own
    ``hidden``.

    Args:
        model: A GPT of floats or of ``PackedLinear`` layers. Its query, key and value weights, and
            those of gate and up, are laid side by side in memory, so that each set is one product;
            to the model they look as before.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.layers = [_Layer(block, model.config) for block in model.blocks]
        self.norm = norm_product(model.norm)
        self.head = output_product(model)
        self.eval()

    def new_cache(self, batch: int, length: int) -> KeyValueCache:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""
        cache: KeyValueCache = self.model.new_cache(batch, length)
        return cache

    @torch.inference_mode()
    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        *,
        cache: KeyValueCache,
        last_only: bool = True,
    ) -> Tensor:
        """Return logits (B, T or 1, V) as the model does."""
        # A prompt has many tokens: there the products take the time, not the operations.
        if tokens.numel() == 1 and positions is not None:
            x = self._step(tokens[0], positions[0], cache)[None]
        else:
            x = self.model.hidden(tokens, positions, cache=cache)
        logits = self.head(x[:, -1:] if last_only else x)
        return logits[..., : self.config.vocabulary_size]

    def _step(self, token: Tensor, position: Tensor, cache: KeyValueCache) -> Tensor:
        """Return what the output layer reads, (1, C), from a token (1,) at the next position
        (1,)."""
        model = self.model
        config = self.config
        cache.reserve(position)
        place = int(position)
        x = model.embed(token)
        rotary = None
        if model.positions is not None:
            x = x + model.positions(position)
        else:
            cosines, sines = rotary_angles(
                position, config.dim, config.rope_theta, config.rope_scaling
            )
            # As in ``rotate``: in float32 at least, whatever the weights are.
            wide = torch.promote_types(cache.layers[0].keys.dtype, torch.float32)
            rotary = cosines[0].to(wide), sines[0].to(wide)
        for layer, kept in zip(self.layers, cache.layers, strict=True):
            x = layer(x, place, rotary, kept)
        return self.norm(x)


class _Layer:
    """One block of the model, for one token."""

    def __init__(self, block: Any, config: Any) -> None:
        attention = block.attention
        mlp = block.mlp
        self.heads = config.heads
        self.groups = config.groups
        self.dim = config.dim
        self.window = config.sliding_window
        self.attention_norm = norm_product(block.attention_norm)
        self.mlp_norm = norm_product(block.mlp_norm)
        self.query_norm = attention.query_norm
        self.key_norm = attention.key_norm
        self.inputs = join_products([attention.query, attention.key, attention.value])
        self.output = join_products([attention.output])
        self.gated = mlp.gate is not None
        self.up = join_products([mlp.gate, mlp.up] if self.gated else [mlp.up])
        self.down = join_products([mlp.down])
        self.approximate = mlp.approximate

    def __call__(self, x: Tensor, place: int, rotary: Rotary | None, cache: LayerCache) -> Tensor:
        """Return (1, C) from x (1, C), the token at position ``place``."""
        x = x + self.output(self._attend(self.attention_norm(x), place, rotary, cache))
        inner = self.up(self.mlp_norm(x))
        if self.gated:
            gate, up = inner.chunk(2, -1)
            return x + self.down(F.silu(gate).mul_(up))
        return x + self.down(F.gelu(inner, approximate=self.approximate))

    def _attend(self, x: Tensor, place: int, rotary: Rotary | None, cache: LayerCache) -> Tensor:
        heads = self.heads
        groups = self.groups
        dim = self.dim
        projected = self.inputs(x).view(heads + 2 * groups, dim)
        # Queries and keys are turned as one tensor; the values after them are not.
        turned = projected[: heads + groups]
        if self.query_norm is not None:
            turned = torch.cat((self.query_norm(turned[:heads]), self.key_norm(turned[heads:])))
        if rotary is not None:
            wide = turned.to(rotary[0].dtype)
            turned = (wide * rotary[0]).addcmul_(wide.roll(dim // 2, -1), rotary[1])
            turned = turned.to(projected.dtype)
        cache.keys.select(2, place).copy_(turned[heads:])
        cache.values.select(2, place).copy_(projected[heads + groups :])
        first = max(0, place + 1 - self.window) if self.window else 0
        keys, values = (each[:, :, first : place + 1] for each in (cache.keys, cache.values))
        # The R queries of a group see the same S keys.
        query = turned[:heads].view(1, groups, -1, dim)
        return F.scaled_dot_product_attention(query, keys, values).view(1, -1)
