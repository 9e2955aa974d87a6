"""The work of detectors with queries: FLOPs of a picture, forward and backward.

A product of a weight and a place is 2 FLOPs forward and 4 backward, half of them the gradient to
what comes before, which is not computed where that is given or detached.

Shape legend: C width, S places of a map, Q queries, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from groundup.nn.placed_attention import PlacedShape

__all__ = ["box_head_products", "decoder_flops", "encoder_products", "hybrid_products"]


def encoder_products(shape: PlacedShape, places: int) -> int:
    """Return the products of a block whose S places attend to each other, forward."""
    width = shape.width
    weights = 4 * width**2 + 2 * width * shape.mlp_width
    # Queries with keys, and weights with values.
    return places * weights + 2 * width * places**2


def decoder_flops(shape: PlacedShape, layers: int, queries: int, read: int) -> float:
    """Return the FLOPs of a decoder's blocks: attention among the queries, and the MLP, with what
    each block reads of a picture.

    Args:
        shape: Of the blocks.
        layers: How many there are.
        queries: Q.
        read: Products of the attention of all queries to a picture, in a block, forward.
    """
    products = layers * (encoder_products(shape, queries) + read)
    # What the queries of the first block begin with has no gradient, so its values pass none.
    return 6.0 * products - 2.0 * queries * shape.width**2


def box_head_products(width: int) -> int:
    """Return the products of the three layers that say a box, for one query or place."""
    return 2 * width**2 + 4 * width


def hybrid_products(shape: PlacedShape, layers: int, inner: int, places: Sequence[int]) -> int:
    """Return the products of a ``HybridEncoder``, forward.

    Args:
        shape: Of its transformer blocks.
        layers: How many there are.
        inner: Channels where maps are mixed.
        places: Of each map, the finest first.
    """
    width = shape.width
    mix = 4 * width * inner + 3 * (9 + 1) * inner**2
    if inner != width:
        mix += inner * width
    found = layers * encoder_products(shape, places[-1])
    for fine, coarse in pairwise(places):
        # Sideways and halved, each at the coarser map, and mixed once at both.
        found += coarse * (1 + 9) * width**2 + (fine + coarse) * mix
    return found
