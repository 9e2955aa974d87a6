"""What all transformers have in common that read one sequence and write another.

Shape legend: B inputs, S positions of an input, R rows that are written (B, or a multiple of it),
    T positions, C width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.errors import DataError
from groundup.core.values import IGNORED
from groundup.nn.attention import AttentionContext, Passage, token_positions
from groundup.nn.copying import CopyHead
from groundup.nn.encoder_decoder_block import EncoderDecoderShape, ReadInput, TwoStackBlock
from groundup.nn.kv_cache import KeyValueCache
from groundup.nn.logits import output_logits
from groundup.nn.loss import linear_cross_entropy_sum
from groundup.nn.positions import RelativeBias, sinusoids
from groundup.nn.rope import rotary_angles
from groundup.nn.transformer import initialise_transformer
from groundup.parallel.vocabulary import add_column, look_up, mean_row

__all__ = ["TwoStackTransformer"]


class TwoStackTransformer(nn.Module, ABC):
    """An encoder that sees the whole input, and a decoder that attends to it and to what it wrote.

    What the inputs are and how they are embedded is a subclass's affair, with ``forward`` and
    ``encode``. ``blocks`` are the encoder's, then the decoder's. The last norm of a pre-norm
    encoder is part of its last block.

    Args:
        config: The settings of the family; ``context_length`` is read of it.
        shape: What they come to.
        decoder: Returns what decodes quickly with the same weights; None: nothing does.

    Source:
        Vaswani et al., 2017 (arXiv:1706.03762); pre-norm: Xiong et al., 2020 (arXiv:2002.04745).
    """

    def __init__(
        self,
        config: object,
        shape: EncoderDecoderShape,
        decoder: Callable[[nn.Module], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self._decoder = decoder
        # Of those whose inputs are tokens some may copy them.
        self.copying: CopyHead | None = None
        self.shape = shape
        width = shape.block.width
        # Whatever comes before the blocks is made before them: fine-tuning tells depth by this.
        self.embed_frames = self._frames()
        self.embed = nn.Embedding(shape.vocabulary_size, width, padding_idx=shape.padding_id)
        self.embed_source: nn.Embedding | None = None
        if shape.source_vocabulary_size:
            self.embed_source = nn.Embedding(
                shape.source_vocabulary_size, width, padding_idx=shape.padding_id
            )
        self.positions_source = self._positions(decodes=False)
        self.positions_target = self._positions(decodes=True)
        self.embed_source_norm = shape.norm() if shape.embedding_norm else None
        self.embed_target_norm = shape.norm() if shape.embedding_norm else None
        self.dropout = nn.Dropout(shape.block.dropout)
        last = shape.layers - 1
        self.blocks = nn.ModuleList(
            [
                *(
                    TwoStackBlock(
                        shape, decodes=False, last_norm=layer == last and not shape.post_norm
                    )
                    for layer in range(shape.layers)
                ),
                *(TwoStackBlock(shape, decodes=True) for _ in range(shape.decoder_layers)),
            ]
        )
        # Post-norm blocks end in a norm already.
        self.norm = None if shape.post_norm else shape.norm()
        self.head = None if shape.tied else nn.Linear(width, shape.vocabulary_size, bias=False)
        self.output_bias: Tensor | None
        bias = torch.zeros(shape.vocabulary_size) if shape.output_bias else None
        # A buffer, as in the published code: it moves with the weights, and no step changes it.
        self.register_buffer("output_bias", bias)
        self.initialise()

    @abstractmethod
    def _frames(self) -> nn.Module | None:
        """Return what embeds inputs that are no tokens; None: they are tokens."""

    def _positions(self, *, decodes: bool) -> nn.Module | None:
        shape = self.shape
        if shape.positions == "relative":
            buckets, longest = shape.relative
            return RelativeBias(buckets, shape.block.heads, longest, both_ways=not decodes)
        if shape.positions == "learned":
            return nn.Embedding(shape.context_length + shape.position_offset, shape.block.width)
        return None

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all weights again: normal with ``init_std``, norms without effect, the padding's
        vector 0."""
        initialise_transformer(self, self.shape.init_std, self.shape.decoder_layers)
        if self.shape.padding_id is not None:
            for embed in filter(None, (self.embed, self.embed_source)):
                embed.weight[self.shape.padding_id].zero_()
        if self.output_bias is not None:
            self.output_bias.zero_()

    # -------------------------------------------------------------------------------- the forward
    def _moved(self, text: Tensor | None) -> Tensor:
        """Return a text (R, T) moved on by one, with the start token before it."""
        assert text is not None, "there are neither tokens nor a text"
        return F.pad(text[:, :-1], (1, 0), value=self.start_id)

    def _hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None,
        cache: KeyValueCache | None,
        embedded: tuple[Tensor, AttentionContext] | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, ReadInput]:
        """Return the last states (R, T, C) of what is written about embedded inputs, or about those
        in the cache; and what was seen of these."""
        x, context = self._embed_target(tokens, positions, cache)
        if embedded is None:
            assert cache is not None, "there is neither an input nor one that was read"
            read = _from_cache(cache, self.shape.decoder_layers)
        else:
            read = ReadInput(mask, self._read(*embedded))
        return self._write(x, context, read, cache), read

    def _outputs(self, hidden: Tensor, targets: Tensor | None, *, last_only: bool) -> Tensor:
        if targets is None:
            return self.logits_from(hidden[:, -1:] if last_only else hidden)
        return self._losses(hidden.flatten(0, 1), targets.flatten())

    def _keep_read(self, cache: KeyValueCache, states: Tensor) -> None:
        """Keep the keys and values that every block of the decoder makes of states (B, S, C)."""
        for layer, block in enumerate(self.blocks[self.shape.layers :]):
            assert isinstance(block, TwoStackBlock)
            assert block.cross_attention is not None
            keys, values = block.cross_attention.read(states)
            cache.encoded |= {f"keys {layer}": keys, f"values {layer}": values}

    def _embed_target(
        self, tokens: Tensor, positions: Tensor | None, cache: KeyValueCache | None
    ) -> tuple[Tensor, AttentionContext]:
        """Return the embedded text (R, T, C), and what it sees of itself."""
        positions = token_positions(tokens, positions, None, cache)
        x = self._place(self.embed(tokens), positions.clamp(min=0), self.positions_target)
        if self.embed_target_norm is not None:
            x = self.embed_target_norm(x)
        passage = Passage(tokens, positions, None, cache, self._wide)
        rotary = self._rotary(positions) if self.shape.positions == "rotary" else None
        context = passage.context(rotary, None)
        if isinstance(self.positions_target, RelativeBias):
            # With a cache the keys are all that was written so far, not these tokens alone.
            length = tokens.shape[1] if cache is None else context.used
            columns = torch.arange(length, device=tokens.device)
            seen = context.mask
            if seen is None:
                seen = columns <= positions[:, None, :, None]
            bias = self.positions_target(positions.clamp(min=0), columns, seen)
            context = AttentionContext(None, None, context.positions, bias, context.used)
        return self.dropout(x), context

    def _place(self, x: Tensor, places: Tensor, table: nn.Module | None) -> Tensor:
        """Return embeddings (B, T, C), scaled, and their places (B or 1, T) added to them."""
        if self.shape.embedding_scale != 1.0:
            x = x * self.shape.embedding_scale
        if isinstance(table, nn.Embedding):
            # Otherwise the look-up would fail on the device, without saying where. A graph that is
            # exported has no branch for it.
            longest = self.shape.context_length
            if not torch.compiler.is_exporting() and places.shape[1] > longest:
                problem = f"a sequence of {places.shape[1]} tokens, but positions end at {longest}"
                remedy = (
                    f"Cut the texts to {longest} tokens (task.max_source_tokens,"
                    " task.max_target_tokens), or raise model.context_length"
                )
                raise DataError("inputs", problem, remedy)
            x = x + table(places + self.shape.position_offset)
        elif self.shape.positions == "sinusoidal":
            x = x + sinusoids(places, x.shape[-1]).to(x.dtype)
        return x

    def _read(self, x: Tensor, context: AttentionContext) -> Tensor:
        for block in self.blocks[: self.shape.layers]:
            x = block(x, context)
        return x

    def _write(
        self, x: Tensor, context: AttentionContext, read: ReadInput, cache: KeyValueCache | None
    ) -> Tensor:
        for layer, block in enumerate(self.blocks[self.shape.layers :]):
            if cache is None:
                x = block(x, context, read, layer)
            else:
                # Past nn.Module.compile: the shapes of decoding change at every step. Not past
                # what gathers a block's parameters, as ``forward`` would be.
                x = block._call_impl(x, context, read, layer, cache.layers[layer])  # type: ignore[no-untyped-call]
        return x if self.norm is None else self.norm(x)

    def _rotary(self, places: Tensor) -> tuple[Tensor, Tensor]:
        shape = self.shape
        return rotary_angles(places, shape.block.head_dim, shape.rope_theta, wide=self._wide)

    # --------------------------------------------------------------------------------- the output
    def logits_from(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) from hidden states (..., C)."""
        return output_logits(self._scaled(hidden), self.output_weight, self.output_bias)

    def _scaled(self, hidden: Tensor) -> Tensor:
        scale = self.shape.output_scale
        return hidden if scale == 1.0 else hidden * scale

    def _losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the two sums of ``forward`` over states (M, C), never holding all logits."""
        hidden = self._scaled(hidden)
        weight = self.output_weight
        if self.output_bias is not None:
            # One channel more, which is always 1, carries the bias.
            hidden = F.pad(hidden, (0, 1), value=1.0)
            weight = add_column(weight, self.output_bias)
        loss = linear_cross_entropy_sum(hidden, weight, targets)
        # The mean of -log p over the vocabulary is that of the target, and how much more the
        # target's logit is than the mean logit. Both are products with one vector a token.
        there = targets != IGNORED
        ahead = look_up(weight, targets.clamp(min=0)) - mean_row(weight)
        more = ((hidden * ahead).sum(-1).to(loss.dtype) * there).sum()
        return torch.stack((loss, loss + more))

    @property
    def start_id(self) -> int:
        """The token before every output."""
        return self.shape.start_id

    @property
    def output_weight(self) -> Tensor:
        """The output layer's weight, (V, C)."""
        return self.embed.weight if self.head is None else self.head.weight

    def new_cache(self, batch: int, length: int) -> KeyValueCache:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""
        block = self.shape.block
        like = self._float_weight()
        shape = (batch, block.kv_heads, length, block.head_dim)
        layers = self.shape.decoder_layers
        return KeyValueCache(layers, shape, like.dtype, like.device, shares_inputs=True)

    @property
    def has_decoder(self) -> bool:
        """Whether there is a quicker step on a CPU."""
        return self._decoder is not None

    def decoder(self) -> nn.Module:
        """Return what decodes quickly, with the same weights."""
        assert self._decoder is not None
        return self._decoder(self)

    def parameter_count(self) -> int:
        """Return how many numbers are trained, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def _wide(self) -> bool:
        # A float64 model is a reference to compare with: its angles must be as fine.
        return self._float_weight().dtype == torch.float64

    def _float_weight(self) -> Tensor:
        """Return a norm's weight: it stays a float where matrices become integers."""
        return next(self.blocks[0].get_submodule("mlp_norm").parameters())


def _from_cache(cache: KeyValueCache, layers: int) -> ReadInput:
    encoded = cache.encoded
    keys = tuple((encoded[f"keys {n}"], encoded[f"values {n}"]) for n in range(layers))
    return ReadInput(encoded.get("mask"), None, keys)
