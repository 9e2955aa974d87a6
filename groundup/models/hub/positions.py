"""Rotary positions of a library module whose wavelengths depend on how long the text is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

__all__ = ["BY_LENGTH", "begin_again", "rotary_positions"]

BY_LENGTH = ("dynamic", "longrope")
"""Kinds of stretching by which wavelengths depend on a text's length, as the library calls them."""


def rotary_positions(tree: nn.Module, kinds: Sequence[str]) -> list[Any]:
    """Return the modules of rotary positions that are stretched in one of some ways."""
    found: list[Any] = []
    for module in tree.modules():
        # Of each kind of layers, or of all.
        kind = vars(module).get("rope_type")
        named = set(kind.values()) if isinstance(kind, dict) else {kind}
        if named & set(kinds):
            found.append(module)
    return found


def begin_again(modules: list[Any]) -> None:
    """Let the next text be read with the wavelengths of its own length.

    The library keeps those of the longest text before, as long as texts are beyond the original
    context.
    """
    for module in modules:
        kinds = module.rope_type
        named = {"": kinds} if isinstance(kinds, str) else {f"{k}_": kinds[k] for k in kinds}
        for prefix, kind in named.items():
            if kind != "dynamic":
                continue
            first = module.get_buffer(f"{prefix}original_inv_freq").clone()
            module.register_buffer(f"{prefix}inv_freq", first, persistent=False)
            vars(module)[f"{prefix}max_seq_len_cached"] = module.original_max_seq_len
