"""What a classifier of inputs may offer.

Shape legend: B rows, T positions, C width, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["ChoosesHead", "Features", "TokenLogits"]


@runtime_checkable
class Features(Protocol):
    """A classifier that shows what its last layer reads."""

    def features(self, *args: Any, **inputs: Any) -> Tensor:
        """Return (B, C)."""


@runtime_checkable
class ChoosesHead(Protocol):
    """A model with one of several heads: for ``masked`` tokens, ``labels`` of a text, ``tokens``
    (outputs for every token) or ``none`` (the states)."""

    @property
    def chosen_head(self) -> str:
        """Which one."""


@runtime_checkable
class TokenLogits(Protocol):
    """A classifier of texts that can also predict tokens."""

    def token_logits(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return what each position predicts of the token after it, (B, T, V).

        Raises:
            RecipeError: If the model cannot as it is set, because positions see later tokens.
        """
