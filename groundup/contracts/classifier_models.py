"""What a classifier of inputs may offer.

Shape legend: B rows, T positions, C width, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

__all__ = [
    "ChoosesHead",
    "DenseLayers",
    "FeatureMaps",
    "Features",
    "HasTrunk",
    "MapSize",
    "TokenLogits",
    "TokenStates",
]


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


@runtime_checkable
class TokenStates(Protocol):
    """A model of texts that shows what it made of each token, for another model to read.

    Attributes:
        state_width: C.
    """

    state_width: int

    def states(self, *args: Any, **inputs: Tensor) -> Tensor:
        """Return (B, T, C) of ``tokens`` (B, T), or ``inputs`` (B, T, F) where it reads frames, and
        ``lengths`` (B,), by keyword. What is in the padding means nothing."""


class MapSize(NamedTuple):
    """What a feature map is: ``stride`` pixels of the picture between neighbouring places, and
    ``width`` channels."""

    stride: int
    width: int


@runtime_checkable
class FeatureMaps(Protocol):
    """Settings of a classifier of pictures whose layers can be the trunk of another model: what
    finds things in a picture, or says something of each pixel.

    The other model takes over ``embed`` and ``blocks`` of the built classifier under these names,
    so that freezing, layer-wise rates and weights of a trained classifier find them.
    """

    def map_sizes(self) -> tuple[MapSize, ...]:
        """Return what maps there are, from the finest to the coarsest; ``input_shape`` is known."""

    def read_maps(self, model: nn.Module, inputs: Tensor) -> list[Tensor]:
        """Return the maps (B, width, H / stride, W / stride) of inputs (B, channels, H, W).

        Args:
            model: Whatever has the classifier's ``embed`` and ``blocks``.
            inputs: Pictures.
        """


@runtime_checkable
class HasTrunk(Protocol):
    """Settings of a model whose ``embed`` and ``blocks`` are those of a classifier of pictures.

    Attributes:
        backbone: The classifier's section, with its name.
    """

    backbone: dict[str, Any]

    def trunk(self) -> Any:
        """Return the classifier's settings, for pictures of this model's shape."""


@runtime_checkable
class DenseLayers(Protocol):
    """Settings of a classifier of rows of numbers, whose ``blocks`` one after the other can be the
    trunk of another model."""

    def layer_widths(self) -> tuple[int, ...]:
        """Return how many numbers go in, and come out of each block."""
