"""What a model may say of layers that compute with one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

__all__ = ["SharesEmbedding", "SharesTensors", "TiesEmbeddings"]


@runtime_checkable
class TiesEmbeddings(Protocol):
    """Settings of a language model whose output layer may be its embedding."""

    tied_embeddings: bool


@runtime_checkable
class SharesEmbedding(Protocol):
    """A language model that can be given an output layer of its own, ``head``."""

    def separate_head(self) -> None:
        """Give it one with the embedding's numbers, if its output layer is the embedding."""

    def share_head(self) -> None:
        """Take that away again."""


@runtime_checkable
class SharesTensors(Protocol):
    """A model that computes with some tensors in a second place, past the layer that holds them.

    What takes the layer's place, such as one with an adapter, is not seen there.
    """

    @property
    def tied(self) -> Mapping[str, str]:
        """The tensors' names, by the names of their second places."""
