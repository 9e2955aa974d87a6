"""Tune glibc's allocator from inside the process.

As it comes, glibc takes large blocks from the kernel and gives them straight back, so that every
training step pays page faults and zeroing for all of its activations.
"""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["tune_allocator"]

# The parameters' numbers in glibc's <malloc.h>.
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_MAX = -4
_LARGEST_INT = 2**31 - 1


def tune_allocator(*, growth_bytes: int = 64 << 20) -> bool:
    """Keep freed memory in this process. Changes speed and resident memory, never a result.

    Call it before the first large allocation. Setting M_MMAP_MAX to 0, and not only the threshold,
    which glibc caps at 32 MiB, is what covers large tensors.

    Args:
        growth_bytes: How much the heap grows by at a time.

    Returns:
        Whether it was applied. On another C library, or where the user has chosen ``MALLOC_*``
        settings or another allocator already, nothing is done.
    """
    chosen = any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ)
    if chosen or not sys.platform.startswith("linux") or os.environ.get("LD_PRELOAD"):
        return False
    # torch then asks for huge pages for its own large buffers
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    libc = ctypes.CDLL(None)
    # musl, as on Alpine, has another mallopt or none
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST_INT), (_TOP_PAD, growth_bytes))
    accepted = [
        libc.mallopt(ctypes.c_int(number), ctypes.c_int(value)) == 1 for number, value in settings
    ]
    return all(accepted)
