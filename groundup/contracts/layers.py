"""What a layer may offer to those who divide a model between processes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["OtherTokens", "SeesOtherTokens"]


class OtherTokens(Protocol):
    """The tokens of each text that are not here, because other processes have them."""

    @property
    def divided(self) -> bool:
        """Whether the texts of the present forward pass are divided; else all tokens are here."""

    def gather(
        self, key: Tensor, value: Tensor, *, causal: bool, window: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the keys and values that the tokens of this process may see, and which of them
        each does.

        Args:
            key: (B, T, G, D), of the T tokens that are here, in each of B texts.
            value: The same shape.
            causal: Whether a token sees what comes before it alone, and itself.
            window: How many tokens it sees at most, itself included; None: no limit.

        Returns:
            Keys (B, S, G, D), values (B, S, G, D) and booleans (B or 1, 1, T, S).
        """


@runtime_checkable
class SeesOtherTokens(Protocol):
    """A layer in which the tokens of a text see each other.

    Attributes:
        others: Those that other processes have; None: all tokens are here.
    """

    others: OtherTokens | None
