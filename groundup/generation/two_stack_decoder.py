"""One token for each row of an encoder-decoder at a time: what its ``forward`` computes with a
cache, in a third of the operations.

A small model that writes about few inputs spends more time between its operations than in them. As
long as all rows are at the same position, which texts that begin with the same tokens always are,
none of them needs a mask, the positions of a step are one row of a table, and query, key and value
are one product. The weights are those of the model: it shares their memory.

Shape legend: B inputs, S positions of an input, R rows that are written (B, or a multiple of it),
    C width, H heads, D head dimension, P positions of a context, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.generation.products import Product, join_products, norm_product, output_product
from groundup.nn.copying import CopySource
from groundup.nn.kv_cache import KeyValueCache, LayerCache
from groundup.nn.like_lengths import PASS_ON_CPU, PASS_ON_GPU, group_like_lengths
from groundup.nn.positions import RelativeBias, sinusoids
from groundup.nn.rope import rotary_angles

__all__ = ["TwoStackDecoder"]

# Where the positions of an input are in what is kept of it; elsewhere they come after the rows.
_PLACE = {"keys": 2, "values": 2, "mask": 3}
# Up to this many numbers a model's weights are kept a second time, in the order of a CPU's products
# (400 MB): a large model's products wait for memory, which nothing shortens.
_PACKED = 100_000_000


class TwoStackDecoder(nn.Module):
    """An encoder-decoder that decodes quickly where all rows are at one position; other rows, and
    more tokens at once, go through its own ``forward``.

    Args:
        model: An ``EncoderDecoderTransformer`` of floats or of ``PackedLinear`` layers. Weights
            that read the same are laid side by side in memory, so that each set is one product; to
            the model they look as before. Of a small model in float32 on a CPU, products read a
            second copy, which follows when the weights change.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.shape = model.shape
        blocks = list(model.blocks)
        packed = sum(weight.numel() for weight in model.parameters()) <= _PACKED
        self.layers = [_Layer(block, self.shape, packed) for block in blocks[self.shape.layers :]]
        self.embed_norm = _norm_or_none(model.embed_target_norm)
        self.norm = _norm_or_none(model.norm)
        self.head = output_product(model, packed=packed)
        self.positions = _Positions(model)
        self.eval()

    @property
    def start_id(self) -> int:
        """The token before every output."""
        return int(self.model.start_id)

    def new_cache(self, batch: int, length: int) -> KeyValueCache:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""
        cache: KeyValueCache = self.model.new_cache(batch, length)
        return cache

    def encode(self, cache: KeyValueCache, **inputs: Tensor) -> None:
        """Read inputs as the model does, and keep in the cache what every block of the decoder
        attends to."""
        mask = inputs.get("source_mask")
        # Attention without a mask takes less time, and a batch of one has no padding.
        if mask is not None and bool(mask.all()):
            del inputs["source_mask"]
        groups = _groups(inputs)
        if len(groups) == 1:
            self.model.encode(cache, **inputs)
        else:
            self._encode_in_groups(cache, inputs, groups)
        encoded = cache.encoded
        for name, value in encoded.items():
            # Heads are next to each other in what a layer made of the states, and read one by one.
            encoded[name] = value.contiguous()
        if "mask" in encoded:
            # As numbers to add, which each layer would otherwise make of the booleans again.
            like = encoded["keys 0"]
            hidden = torch.zeros_like(encoded["mask"], dtype=like.dtype)
            encoded["hidden"] = hidden.masked_fill_(~encoded["mask"], -torch.inf)

    def _encode_in_groups(
        self, cache: KeyValueCache, inputs: Mapping[str, Tensor], groups: list[Tensor]
    ) -> None:
        """Read inputs of like lengths at a time, and pad what was made of them, not them."""
        mask = inputs["source_mask"]
        for group in groups:
            part = self.model.new_cache(len(group), 1)
            own = mask[group]
            longest = int(own.sum(1).max())
            source = inputs["source"][group, :longest]
            self.model.encode(part, source=source, source_mask=own[:, :longest])
            for name, value in part.encoded.items():
                size = list(value.shape)
                place = _PLACE.get(name.partition(" ")[0], 1)
                size[0] = len(mask)
                size[place] = mask.shape[1]
                whole = cache.encoded.setdefault(name, value.new_zeros(size))
                whole.narrow(place, 0, longest)[group] = value

    @torch.inference_mode()
    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        *,
        cache: KeyValueCache,
        last_only: bool = True,
    ) -> Tensor:
        """Return logits (R, T or 1, V) as the model does."""
        if tokens.shape[1] > 1 or positions is None or not bool((positions == positions[0]).all()):
            logits: Tensor = self.model(tokens, positions, cache=cache, last_only=last_only)
            return logits
        x = self._step(tokens[:, 0], positions[:1], cache)
        if self.shape.output_scale != 1.0:
            x = x * self.shape.output_scale
        logits = self.head(x)[:, None]
        if self.model.copying is not None:
            encoded = cache.encoded
            copied = CopySource(encoded["copy tokens"], encoded["copy keys"], encoded.get("mask"))
            mixed: Tensor = self.model.copying.log_probs(x[:, None], logits, copied)
            return mixed
        bias = self.model.output_bias
        return logits if bias is None else logits.add_(bias)

    def _step(self, tokens: Tensor, position: Tensor, cache: KeyValueCache) -> Tensor:
        """Return the last states (R, C) of tokens (R,), all at the next position (1, 1)."""
        cache.reserve(position)
        # Not the last slot in use: texts that outgrew the context have begun again.
        place = int(position)
        x = self.positions.add(self.model.embed(tokens), place)
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        rotary = self.positions.rotary(place)
        bias = self.positions.bias(place)
        for number, (layer, kept) in enumerate(zip(self.layers, cache.layers, strict=True)):
            x = layer.attend(x, place, rotary, bias, kept)
            x = layer.attend_to_input(x, number, cache.encoded)
            x = layer.transform(x)
        return x if self.norm is None else self.norm(x)


def _groups(inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the numbers of rows of like lengths, where inputs are padded texts."""
    mask = inputs.get("source_mask")
    if mask is None:
        return [torch.empty(0)]
    lengths = mask.sum(1)
    # Padding on the left is another layout, which the model reads as it is.
    if bool((mask != (torch.arange(mask.shape[1], device=mask.device) < lengths[:, None])).any()):
        return [torch.empty(0)]
    cost = PASS_ON_CPU if mask.device.type == "cpu" else PASS_ON_GPU
    groups = group_like_lengths((lengths.cpu().numpy(),), cost)
    return [torch.from_numpy(group).to(mask.device) for group in groups]


class _Positions:
    """Where a token is, as tables with a row for each position of the context."""

    def __init__(self, model: Any) -> None:
        shape = model.shape
        self.scale = float(shape.embedding_scale)
        like = next(model.blocks[0].mlp_norm.parameters())
        places = torch.arange(shape.context_length, device=like.device)
        self.table: Tensor | None = None  # (P, C)
        self.angles: tuple[Tensor, Tensor] | None = None  # each (P, 1, D)
        self.distances: Tensor | None = None  # (1, H, 1, P), of the furthest key first
        if shape.positions == "learned":
            self.table = model.positions_target.weight[shape.position_offset :]
        elif shape.positions == "sinusoidal":
            self.table = sinusoids(places, shape.block.width).to(like.dtype)
        elif shape.positions == "rotary":
            wide = like.dtype == torch.float64
            self.angles = rotary_angles(places, shape.block.head_dim, shape.rope_theta, wide=wide)
        relative = model.positions_target
        if isinstance(relative, RelativeBias):
            with torch.no_grad():
                self.distances = relative(places[None, -1:], places, None)

    def add(self, x: Tensor, place: int) -> Tensor:
        """Return embeddings (R, C), scaled, and the vector of a position added to them."""
        if self.scale != 1.0:
            x = x * self.scale
        return x if self.table is None else x + self.table[place]

    def rotary(self, place: int) -> tuple[Tensor, Tensor] | None:
        """Return cosines and sines (1, D) of a position."""
        if self.angles is None:
            return None
        return self.angles[0][place], self.angles[1][place]

    def bias(self, place: int) -> Tensor | None:
        """Return what is added to the products of the query at a position with the keys up to it,
        (1, H, 1, place + 1)."""
        if self.distances is None:
            return None
        return self.distances[..., self.distances.shape[-1] - 1 - place :]


class _Layer:
    """One block of the decoder, for one token of each row."""

    def __init__(self, block: Any, shape: Any, packed: bool) -> None:
        self.post_norm = shape.post_norm
        self.heads = shape.block.heads
        self.dim = shape.block.head_dim
        self.scale = shape.attention_scale
        attention = block.attention
        cross = block.cross_attention
        mlp = block.mlp
        self.attention_norm = norm_product(block.attention_norm)
        own = [attention.query, attention.key, attention.value]
        self.inputs = join_products(own, packed=packed)
        self.output = join_products([attention.output], packed=packed)
        self.cross_norm = norm_product(block.cross_norm)
        self.cross_query = join_products([cross.query], packed=packed)
        self.cross_output = join_products([cross.output], packed=packed)
        self.mlp_norm = norm_product(block.mlp_norm)
        self.gated = mlp.gate is not None
        up = [mlp.gate, mlp.up] if self.gated else [mlp.up]
        self.up = join_products(up, packed=packed)
        self.down = join_products([mlp.down], packed=packed)
        self.activate = _activation(mlp)

    def attend(
        self,
        x: Tensor,
        place: int,
        rotary: tuple[Tensor, Tensor] | None,
        bias: Tensor | None,
        cache: LayerCache,
    ) -> Tensor:
        """Return (R, C) from x (R, C), the tokens at position ``place``, each of which sees all
        that its row has written."""
        heads = self.heads
        read = x if self.post_norm else self.attention_norm(x)
        projected = self.inputs(read).view(len(x), 3 * heads, self.dim)
        # Queries and keys are turned as one tensor; the values after them are not.
        turned = projected[:, : 2 * heads]
        if rotary is not None:
            wide = turned.to(torch.promote_types(turned.dtype, rotary[0].dtype))
            rolled = wide.roll(self.dim // 2, -1)
            turned = (wide * rotary[0]).addcmul_(rolled, rotary[1]).to(projected.dtype)
        cache.keys.select(2, place).copy_(turned[:, heads:])
        cache.values.select(2, place).copy_(projected[:, 2 * heads :])
        found = F.scaled_dot_product_attention(
            turned[:, :heads, None],
            cache.keys[:, :, : place + 1],
            cache.values[:, :, : place + 1],
            bias,
            scale=self.scale,
        )
        return self._add(x, self.output(found.reshape(len(x), -1)), self.attention_norm)

    def attend_to_input(self, x: Tensor, number: int, encoded: Mapping[str, Tensor]) -> Tensor:
        """Return (R, C) from x (R, C), which attends to what was read of its input."""
        keys = encoded[f"keys {number}"]
        values = encoded[f"values {number}"]
        query = self.cross_query(x if self.post_norm else self.cross_norm(x))
        # Several texts about one input attend to it together: (B, H, R / B, D).
        together = query.view(len(keys), -1, self.heads, self.dim).transpose(1, 2)
        found = F.scaled_dot_product_attention(
            together, keys, values, encoded.get("hidden"), scale=self.scale
        )
        found = found.transpose(1, 2).reshape(len(x), -1)
        return self._add(x, self.cross_output(found), self.cross_norm)

    def transform(self, x: Tensor) -> Tensor:
        """Return (R, C) from x (R, C), each token by itself."""
        inner = self.up(x if self.post_norm else self.mlp_norm(x))
        if self.gated:
            gate, up = inner.chunk(2, -1)
            inner = self.activate(gate).mul_(up)
        else:
            inner = self.activate(inner)
        return self._add(x, self.down(inner), self.mlp_norm)

    def _add(self, x: Tensor, found: Tensor, norm: Product) -> Tensor:
        # What a product returned is nobody else's.
        total = found.add_(x)
        return norm(total) if self.post_norm else total


def _activation(mlp: Any) -> Product:
    if mlp.activation == "relu":
        return F.relu
    if mlp.activation in ("silu", "swiglu"):
        return F.silu
    approximate = mlp.approximate
    return lambda x: F.gelu(x, approximate=approximate)


def _norm_or_none(norm: nn.Module | None) -> Product | None:
    return None if norm is None else norm_product(norm)
