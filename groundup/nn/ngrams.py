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

        Inverse document frequencies: Manning, Raghavan and Schuetze, 2008, "Introduction to
        information retrieval", section 6.2, with one added to both counts and to the logarithm, so
        that nothing counts for nothing; the bag is then divided by the length of its weights. The
        documents are counted as training sees them, so that no pass over the data comes before it.

    Args:
        vocabulary_size: Of single tokens.
        width: Numbers in a vector.
        longest: Tokens in the longest n-gram.
        buckets: Vectors of n-grams of two tokens and more.
        idf: Let a token or n-gram count the more, the fewer training texts have it.
        sublinear_tf: Let one that a text has c times count 1 + log c, not c.
    """

    documents: Tensor
    with_token: Tensor
    with_ngram: Tensor

    def __init__(
        self,
        vocabulary_size: int,
        width: int,
        longest: int,
        buckets: int,
        idf: bool = False,
        sublinear_tf: bool = False,
    ) -> None:
        super().__init__()
        self.sublinear_tf = sublinear_tf
        self.longest = longest
        self.buckets = buckets
        self.embed = nn.Embedding(vocabulary_size, width)
        self.embed_ngrams = nn.Embedding(buckets, width) if longest > 1 else None
        nn.init.uniform_(self.embed.weight, -1 / width, 1 / width)
        if self.embed_ngrams is not None:
            nn.init.zeros_(self.embed_ngrams.weight)
        self.idf = idf
        if idf:
            # Floats, as averages of weights over steps are made of all that a model keeps.
            self.documents = nn.Buffer(torch.zeros(1))
            self.with_token = nn.Buffer(torch.zeros(vocabulary_size))
            self.with_ngram = nn.Buffer(torch.zeros(buckets if longest > 1 else 0))

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return (B, C).

        Args:
            tokens: (B, T) int64.
            lengths: (B,) int64, what of each row is no padding, at least 1; default: all.
        """
        inside = within(lengths, tokens)
        counts = self.training and torch.is_grad_enabled()
        if counts and self.idf:
            self.documents += len(tokens)
        weights, squares = self._weigh(tokens, inside, 1, counts)
        total = _sum(self.embed(tokens), weights)
        for length in range(2, min(self.longest, tokens.shape[1]) + 1):
            assert self.embed_ngrams is not None
            # An n-gram is there if its last token is: padding is at the end.
            found = ngram_buckets(tokens, length, self.buckets)
            weights, more = self._weigh(found, inside[:, length - 1 :], length, counts)
            total = total + _sum(self.embed_ngrams(found), weights)
            squares = squares + more
        return total / squares[:, None].to(total.dtype).sqrt()

    def _weigh(
        self, found: Tensor, inside: Tensor, length: int, counts: bool
    ) -> tuple[Tensor, Tensor]:
        """Return (B, T) float32, what each token or n-gram counts for, 0 outside the text; and (B,)
        their part in the squared length of the bag."""
        weights = inside.float()
        if self.idf:
            seen = self.with_token if length == 1 else self.with_ngram
            if counts:
                each = _distinct(found, inside)
                seen.index_add_(0, each, torch.ones_like(each, dtype=seen.dtype))
            rare = ((1 + self.documents) / (1 + seen[found])).log().clamp(min=0) + 1
            weights = weights * rare
        if not self.sublinear_tf:
            return weights, weights.square().sum(1)
        times = _count_in_row(found, inside)
        # each of c occurrences carries its share of 1 + log c, and of that one's square
        weights = weights * (1 + times.log()) / times
        return weights, (weights.square() * times).sum(1)


def _sort_row(found: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (B, T) each row in order, with -1 outside the text; whether each is the first of its
    equals; and where it came from."""
    ordered, places = found.masked_fill(~inside, -1).sort(1)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return ordered, first, places


def _distinct(found: Tensor, inside: Tensor) -> Tensor:
    """Return what the rows hold, each once for every row that has it, however often."""
    ordered, first, _ = _sort_row(found, inside)
    return ordered[first & (ordered >= 0)]


def _count_in_row(found: Tensor, inside: Tensor) -> Tensor:
    """Return (B, T) float32, how often the row has what is at each position, at least 1."""
    _, first, places = _sort_row(found, inside)
    runs = first.long().cumsum(1) - 1
    lengths = torch.zeros_like(runs).scatter_add_(1, runs, torch.ones_like(runs))
    return torch.zeros_like(runs).scatter_(1, places, lengths.gather(1, runs)).float()


def _sum(vectors: Tensor, weights: Tensor) -> Tensor:
    """Return (B, C), the sum over positions of vectors (B, T, C), each times its weight (B, T)."""
    return (vectors * weights[..., None].to(vectors.dtype)).sum(1)
