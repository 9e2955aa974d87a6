"""Where a token is, other than by rotation: vectors that are added to embeddings, and distances
that attention is biased by.

Shape legend: B rows, T positions of queries, S positions of keys, C width, H heads, N buckets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["RelativeBias", "relative_buckets", "sinusoids"]


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Return (..., C) float32 of positions (...): sines of falling frequencies, then the cosines.

    Source:
        Vaswani et al., 2017 (arXiv:1706.03762), section 3.5. Departs from the paper: sines and
        cosines are in two halves, not in turn, as Marian has them.
    """
    # Angles of a thousand radians in float32 would be wrong in the fourth digit.
    kind = torch.float32 if positions.device.type == "mps" else torch.float64
    exponents = torch.arange(0, width, 2, device=positions.device, dtype=kind) / width
    angles = positions[..., None].to(kind) / 10000.0**exponents
    return torch.cat((angles.sin(), angles.cos()), -1).float()


def relative_buckets(distances: Tensor, buckets: int, longest: int, *, both_ways: bool) -> Tensor:
    """Return the bucket, 0 .. buckets - 1, of each distance from a query to a key.

    Half of the buckets hold one distance each, the others ranges that grow like a logarithm.

    Args:
        distances: Integers, the key's position minus the query's.
        buckets: How many there are.
        longest: From this distance on, all share the last bucket.
        both_ways: Whether keys behind the query have buckets of their own, half of them; else they
            share that of distance 0.

    Source:
        Raffel et al., T5, 2020 (arXiv:1910.10683), section 2.1, with the buckets of the authors'
        code.
    """
    first = torch.zeros_like(distances)
    if both_ways:
        buckets //= 2
        first = (distances > 0).long() * buckets
        distances = distances.abs()
    else:
        distances = (-distances).clamp(min=0)
    exact = buckets // 2
    # The clamp only keeps the logarithm finite: distances below ``exact`` are not taken from it.
    growth = torch.log(distances.clamp(min=1).float() / exact) / math.log(longest / exact)
    large = exact + (growth * (buckets - exact)).long()
    return first + torch.where(distances < exact, distances, large.clamp(max=buckets - 1))


class RelativeBias(nn.Module):
    """A learned number for each head and bucket of distances, added to the products of queries and
    keys.

    Args:
        buckets: N.
        heads: H.
        longest: From this distance on, all share a bucket.
        both_ways: Whether keys behind the query are told from those before it.
    """

    def __init__(self, buckets: int, heads: int, longest: int, *, both_ways: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(buckets, heads))
        self.longest = longest
        self.both_ways = both_ways

    def forward(self, queries: Tensor, keys: Tensor, seen: Tensor | None) -> Tensor:
        """Return what is added, (B, H, T, S), -inf where nothing is seen.

        Args:
            queries: (B or 1, T) positions.
            keys: (S,) positions.
            seen: (B, 1, T or 1, S) booleans; None: all is seen.
        """
        distances = keys - queries[..., None]
        found = relative_buckets(
            distances, len(self.weight), self.longest, both_ways=self.both_ways
        )
        bias = self.weight[found].permute(0, 3, 1, 2)
        return bias if seen is None else bias.masked_fill(~seen, -torch.inf)
