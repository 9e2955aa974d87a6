"""A transformer that reads one text and writes another.

Shape legend: B inputs, S positions of an input, R rows that are written (B, or a multiple of it),
    T positions, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from groundup.nn.attention import AttentionContext
from groundup.nn.copying import CopyHead, CopySource
from groundup.nn.encoder_decoder_block import EncoderDecoderShape, ReadInput
from groundup.nn.kv_cache import KeyValueCache
from groundup.nn.positions import RelativeBias
from groundup.nn.two_stacks import TwoStackTransformer

__all__ = ["EncoderDecoderTransformer"]


class EncoderDecoderTransformer(TwoStackTransformer):
    """Inputs are tokens too, of the same vocabulary or of one of their own, with positions of the
    same kind."""

    def __init__(
        self,
        config: object,
        shape: EncoderDecoderShape,
        decoder: Callable[[nn.Module], nn.Module] | None = None,
    ) -> None:
        super().__init__(config, shape, decoder)
        if shape.copies:
            self.copying = CopyHead(shape.block.width)
            # Drawn like all others, with the scale of the settings.
            self.initialise()

    def _frames(self) -> None:
        return None

    def forward(
        self,
        tokens: Tensor | None = None,
        positions: Tensor | None = None,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
        text: Tensor | None = None,
        targets: Tensor | None = None,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Predict the next token at every position of a text about an input.

        Args:
            tokens: (R, T) int64, what is written: a start token, and the text. None: ``text``
                moved on by one, with the start token before it.
            positions: (R, T) int64; default 0 .. T-1, or what follows the cache. With a cache, -1
                marks padding on the left.
            source: (B, S) int64, the inputs; None: those that ``encode`` read into the cache. R is
                B with them, and else may be a multiple of it.
            source_mask: (B, S) booleans, what of the inputs is no padding, on any side; each has a
                token at least. Default: all.
            text: (R, T) int64, in place of ``tokens``: what is predicted at each position.
            targets: (R, T) int64, the tokens that come next, -100 where nothing is trained.
            cache: Keys and values of what was written before; this call adds to it.
            last_only: Return logits of the last position only.

        Returns:
            Without targets the logits (R, T or 1, V). With targets two sums over them in float32
            (float64 in a float64 model): of -log p in nats, and of the mean of -log p of all tokens
            of the vocabulary, which label smoothing adds a share of.

        Raises:
            DataError: If a sequence is longer than the table of learned positions.
        """
        # Both are embedded first: what comes before the blocks is used before them.
        embedded = None if source is None else self._embed_source(source, source_mask)
        if tokens is None:
            tokens = self._moved(text)
        hidden, read = self._hidden(tokens, positions, cache, embedded, _seen(source_mask))
        if self.copying is None:
            return self._outputs(hidden, targets, last_only=last_only)
        copied = self._copied(self.copying, source, read, cache)
        if targets is not None:
            return self.copying.losses(hidden, self.output_weight, targets, copied)
        if last_only:
            hidden = hidden[:, -1:]
        # Log-probabilities are logits too: their softmax is the mixture itself.
        return self.copying.log_probs(hidden, self.logits_from(hidden), copied)

    def encode(
        self, cache: KeyValueCache, *, source: Tensor, source_mask: Tensor | None = None
    ) -> None:
        """Read inputs (B, S), and keep in the cache what every block of the decoder attends to."""
        states = self._read(*self._embed_source(source, source_mask))
        self._keep_read(cache, states)
        mask = _seen(source_mask)
        if self.copying is not None:
            copied = self.copying.read(source, states, mask)
            cache.encoded |= {"copy tokens": copied.tokens, "copy keys": copied.keys}
        # Next to the keys, so that it is dropped with them when a row ends.
        if mask is not None:
            cache.encoded["mask"] = mask

    def _copied(
        self,
        copying: CopyHead,
        source: Tensor | None,
        read: ReadInput,
        cache: KeyValueCache | None,
    ) -> CopySource:
        """Return what may be copied: of inputs that were just read, or of those in the cache."""
        if source is not None:
            assert read.states is not None
            return copying.read(source, read.states, read.mask)
        assert cache is not None
        return CopySource(cache.encoded["copy tokens"], cache.encoded["copy keys"], read.mask)

    def _embed_source(self, source: Tensor, mask: Tensor | None) -> tuple[Tensor, AttentionContext]:
        """Return the embedded inputs (B, S, C), and what they see."""
        places = torch.arange(source.shape[1], device=source.device)[None]
        if mask is not None:
            # Padding takes no place: an input is the same whichever side it is padded on.
            places = (mask.cumsum(1) - 1).clamp(min=0)
        embed = self.embed if self.embed_source is None else self.embed_source
        x = self._place(embed(source), places, self.positions_source)
        if self.embed_source_norm is not None:
            x = self.embed_source_norm(x)
        seen = _seen(mask)
        rotary = None
        if self.shape.positions == "rotary":
            rotary = self._rotary(places)
        if isinstance(self.positions_source, RelativeBias):
            # Distances are those between columns: padding is on one side.
            columns = torch.arange(source.shape[1], device=source.device)
            seen = self.positions_source(columns[None], columns, seen)
        return self.dropout(x), AttentionContext(rotary, mask=seen)


def _seen(mask: Tensor | None) -> Tensor | None:
    """Return (B, 1, 1, S) from which of (B, S) is no padding."""
    return None if mask is None else mask[:, None, None]
