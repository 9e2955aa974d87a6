"""How GGUF stores numbers: plain floats, and blocks of small integers that share a scale.

A row of a tensor is cut into blocks. Each block holds its values' small integers q and what turns
them back into numbers: a scale d, in some kinds a lowest value m. All numbers are little-endian; d
and m are float16. ``dequantize`` turns them into float32; ``gguf_writer.quantize`` turns it back.

Source: the structures and the reference conversions of ggml (ggml-common.h and ggml-quants.c of
github.com/ggml-org/ggml, MIT), read for their layout; this code is groundup's own, so that reading
a file needs no further library and takes memory for a chunk only.

Shape legend: N blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHUNK", "KINDS", "OTHER_KINDS", "Kind", "dequantize"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
# values turned at a time, so that what is held between is small
CHUNK = 1 << 20


@dataclass(frozen=True)
class Kind:
    """A way to store numbers: blocks of ``values`` numbers in ``size`` bytes, known in files by
    ``number``."""

    name: str
    number: int
    values: int
    size: int


_KINDS = (
    Kind("F32", 0, 1, 4),
    Kind("F16", 1, 1, 2),
    Kind("Q4_0", 2, 32, 18),
    Kind("Q4_1", 3, 32, 20),
    Kind("Q5_0", 6, 32, 22),
    Kind("Q5_1", 7, 32, 24),
    Kind("Q8_0", 8, 32, 34),
    Kind("Q4_K", 12, 256, 144),
    Kind("Q5_K", 13, 256, 176),
    Kind("Q6_K", 14, 256, 210),
    Kind("BF16", 30, 1, 2),
)
KINDS = {kind.name: kind for kind in _KINDS}
OTHER_KINDS = {  # known by name only, so that errors can say it
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
}


def dequantize(raw: Bytes, kind: Kind) -> Floats:
    """Return the numbers that bytes hold, in one dimension.

    Args:
        raw: One dimension, a whole number of blocks.
        kind: How they are stored.
    """
    blocks = raw.reshape(-1, kind.size)
    numbers = np.empty((len(blocks), kind.values), dtype=np.float32)
    step = CHUNK // kind.values
    # A damaged scale may be infinite; whoever reads weights looks for that.
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), step):
            numbers[start : start + step] = _DECODERS[kind.name](blocks[start : start + step])
    return numbers.reshape(-1)


# --------------------------------------------------------------------------------- bytes to numbers
def _f32(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view("<f4").astype(np.float32)


def _f16(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view("<f2").astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    """Return numbers (N, 1) from the upper halves of float32."""
    return (np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << 16).view(np.float32)


def _nibbles(packed: Bytes) -> Floats:
    """Return (N, 32) numbers 0 to 15 from (N, 16) bytes: the lower halves, then the upper
    halves."""
    return np.concatenate((packed & 15, packed >> 4), axis=-1).astype(np.float32)


def _q8_0(blocks: Bytes) -> Floats:
    """d, 32 signed bytes q: d q."""
    return _f16(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _q4_0(blocks: Bytes) -> Floats:
    """d, 16 bytes of two q each: d (q - 8)."""
    return _f16(blocks[:, :2]) * (_nibbles(blocks[:, 2:]) - np.float32(8))


def _q4_1(blocks: Bytes) -> Floats:
    """d, m, 16 bytes of two q each: d q + m."""
    return _f16(blocks[:, :2]) * _nibbles(blocks[:, 4:]) + _f16(blocks[:, 2:4])


def _fifths(bits: Bytes) -> Floats:
    """Return (N, 32) numbers 0 or 16 from (N, 4) bytes, the lowest bit of the first byte first."""
    return np.unpackbits(bits, axis=1, bitorder="little").astype(np.float32) * np.float32(16)


def _q5_0(blocks: Bytes) -> Floats:
    """d, 4 bytes of the fifth bits, 16 bytes of the lower four bits of two q each: d (q - 16)."""
    return _f16(blocks[:, :2]) * (
        _nibbles(blocks[:, 6:]) + _fifths(blocks[:, 2:6]) - np.float32(16)
    )


def _q5_1(blocks: Bytes) -> Floats:
    """d, m, 4 bytes of the fifth bits, 16 bytes of the lower four bits of two q each: d q + m."""
    return _f16(blocks[:, :2]) * (_nibbles(blocks[:, 8:]) + _fifths(blocks[:, 4:8])) + _f16(
        blocks[:, 2:4]
    )


def _q4_k(blocks: Bytes) -> Floats:
    """d, dmin, 12 bytes of scales, 128 bytes of two q each: (d s) q - dmin t in eight parts of 32,
    each with s and t.

    Parts go in pairs: 32 bytes hold the first of a pair in their lower halves, the second in their
    upper halves.
    """
    return _eight_parts(blocks, _paired_nibbles(blocks[:, 16:]))


def _q5_k(blocks: Bytes) -> Floats:
    """As Q4_K, with 32 bytes of fifth bits before the 128: bit i of byte j belongs to number j of
    part i."""
    parts = np.arange(8, dtype=np.uint8)[:, None]
    fifths = np.left_shift(blocks[:, None, 16:48] >> parts & 1, 4, dtype=np.uint8)
    return _eight_parts(blocks, _paired_nibbles(blocks[:, 48:]) | fifths)


def _paired_nibbles(packed: Bytes) -> Bytes:
    """Return (N, 8, 32) numbers 0 to 15 from (N, 128) bytes."""
    pairs = packed.reshape(-1, 4, 1, 32)
    return np.concatenate((pairs & 15, pairs >> 4), axis=2).reshape(-1, 8, 32)


def _eight_parts(blocks: Bytes, whole: Bytes) -> Floats:
    scales, lowest = _six_bit_pairs(blocks[:, 4:16])
    q = whole.astype(np.float32)
    factors = _f16(blocks[:, :2]) * scales
    offsets = _f16(blocks[:, 2:4]) * lowest
    return (factors[..., None] * q - offsets[..., None]).reshape(-1, 256)


def _six_bit_pairs(packed: Bytes) -> tuple[Floats, Floats]:
    """Return scales and lowest values, each (N, 8) from 0 to 63, from (N, 12) bytes.

    Bytes 0 to 3 hold the first four scales in six bits, bytes 4 to 7 the first four lowest values.
    The last four have their lower four bits in bytes 8 to 11 (scale in the lower half) and their
    upper two bits on top of the first.
    """
    a = packed[:, :4]
    b = packed[:, 4:8]
    c = packed[:, 8:]
    scales = np.concatenate((a & 63, (c & 15) | (a >> 6 << 4)), axis=1)
    lowest = np.concatenate((b & 63, (c >> 4) | (b >> 6 << 4)), axis=1)
    return scales.astype(np.float32), lowest.astype(np.float32)


def _q6_k(blocks: Bytes) -> Floats:
    """128 bytes of lower four bits, 64 of upper two, 16 signed scales s, d: (d s) (q - 32) in
    sixteen parts of 16.

    Each half of 128 numbers is four rows of 32. Rows 0 and 1 have their lower bits in the lower
    halves of 64 bytes, rows 2 and 3 in the upper halves; 32 bytes hold the upper two bits of all
    four rows, row 0 lowest.
    """
    low = blocks[:, :128].reshape(-1, 2, 1, 2, 32)
    low = np.concatenate((low & 15, low >> 4), axis=2).reshape(-1, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3
    q = (low | high << 4).astype(np.float32).reshape(-1, 16, 16) - np.float32(32)
    scales = _f16(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return (scales[..., None] * q).reshape(-1, 256)


_DECODERS: dict[str, Callable[[Bytes], Floats]] = {
    "F32": _f32,
    "F16": _f16,
    "BF16": _bf16,
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
