"""Pictures as PNG, for pages that carry everything with them."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["data_uri", "encode_png"]


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture (H, W) in grey or (H, W, 3) in colour, 8 bits a channel, as the bytes of a
    PNG file.

    Source:
        W3C, "Portable Network Graphics (PNG) Specification", second edition, 2003: sections 5 and 7
        to 11.
    """
    height, width = pixels.shape[:2]
    lines = np.ascontiguousarray(pixels).reshape(height, -1)
    # Each line begins with its filter, 0: none, which keeps this short.
    unfiltered = np.concatenate((np.zeros((height, 1), np.uint8), lines), 1).tobytes()
    # 8 bits a channel; 0 is grey and 2 is colour.
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(unfiltered, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Return a picture as a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode("ascii")
