"""Bags of n-grams: vectors of single tokens and of runs of them, added up.

Shape legend: B rows, T positions, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.nn.pooling import within

__all__ = ["NGramBag", "ngram_buckets"]

# Their product is below 2**63: nothing overflows in int64.
_PRIME = 2**31 - 1
_FACTOR = 1_000_003


def ngram_buckets(tokens: Tensor, length: int, buckets: int) -> Tensor:
    """Return (B, T - length + 1) int64, the bucket of the n-gram that begins at each position.

    A polynomial in the tokens modulo a prime, then modulo ``buckets``: the same on every machine.

    Args:
        tokens: (B, T) int64, below 2**31.
        length: Tokens in an n-gram, at most T.
        buckets: How many there are; n-grams may share one.
    """
    starts = tokens.shape[1] - length + 1
    found = torch.zeros_like(tokens[:, :starts])
    for place in range(length):
        found = (found * _FACTOR + tokens[:, place : place + starts] + 1) % _PRIME
    return found % buckets


class NGramBag(nn.Module):
    """The vectors of all n-grams of up to ``longest`` tokens, added up, over the root of how many
    there are.

    Single tokens have a vector each; longer n-grams are hashed, and those that meet in a bucket
    share its vector.

    Source:
        Joulin et al., 2016, "Bag of tricks for efficient text classification" (arXiv:1607.01759),
        sections 2 and 2.2. Departs from it in dividing by the root of the number, as TF-IDF of unit
        length nearly does, where it has the mean; and the vectors of n-grams begin at 0, so that
        most n-grams never seen in training add nothing.
    """

    def __init__(self, vocabulary_size: int, width: int, longest: int, buckets: int) -> None:
        super().__init__()
        self.longest = longest
        self.buckets = buckets
        self.embed = nn.Embedding(vocabulary_size, width)
        self.embed_ngrams = nn.Embedding(buckets, width) if longest > 1 else None
        nn.init.uniform_(self.embed.weight, -1 / width, 1 / width)
        if self.embed_ngrams is not None:
            nn.init.zeros_(self.embed_ngrams.weight)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return (B, C).

        Args:
            tokens: (B, T) int64.
            lengths: (B,) int64, what of each row is no padding, at least 1; default: all.
        """
        inside = within(lengths, tokens)
        total = _sum(self.embed(tokens), inside)
        count = inside.sum(1)
        for length in range(2, min(self.longest, tokens.shape[1]) + 1):
            assert self.embed_ngrams is not None
            # An n-gram is there if its last token is: padding is at the end.
            there = inside[:, length - 1 :]
            found = ngram_buckets(tokens, length, self.buckets)
            total = total + _sum(self.embed_ngrams(found), there)
            count = count + there.sum(1)
        return total / count[:, None].to(total.dtype).sqrt()


def _sum(vectors: Tensor, inside: Tensor) -> Tensor:
    """Return (B, C), the sum over the positions inside (B, T), of vectors (B, T, C)."""
    return vectors.masked_fill(~inside[..., None], 0.0).sum(1)
