"""What a source of interactions, a processor of them, a recommender and the task say to each other.

Users and items have numbers from 1 on; 0 is an unknown one, and what fills rows up. Items that
training has seen come first: ``1 .. trained_items``; then those of which only columns are known.

Shape legend: B rows, T positions, N items, M candidates, C width, I numbers, K categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.contracts.processors import InputProcessor
from groundup.core.values import Batch

__all__ = [
    "NOBODY",
    "Catalogue",
    "Choice",
    "HasSquaredNorms",
    "MakesLists",
    "ReadsCatalogue",
    "RecommendationSizes",
    "Recommender",
    "RecommenderProcessor",
    "UserHistory",
    "score_items",
]

NOBODY = 0
"""The number of an unknown user or item."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What is known besides what is learned from, shared by all examples of a source.

    Attributes:
        items: The columns of each item.
        titles: What an item is called, where it has a name.
        users: The columns of each user.
        seen: All that each user did, in order of time: what is not recommended again. Held-out
            interactions are among it, so that nothing may be learned from it.
    """

    items: Mapping[str, Mapping[str, Any]]
    titles: Mapping[str, str]
    users: Mapping[str, Mapping[str, Any]]
    seen: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class UserHistory:
    """A user and what they did before, the oldest first; what a recommendation is made from.

    Attributes:
        times: When, in seconds, of what is before and then of what is chosen; empty where unknown.
    """

    user: str
    items: tuple[str, ...] = ()
    times: tuple[float, ...] = field(default=(), repr=False)
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False)
    catalogue: Catalogue | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Choice:
    """What a user did next, in order of time, and how each was rated, where that is known."""

    items: tuple[str, ...]
    ratings: tuple[float, ...] = ()


class RecommendationSizes(NamedTuple):
    """What a model takes from the data.

    Attributes:
        users: Users that training has seen.
        items: Items there are.
        trained_items: Of them, those that training has seen.
        max_history: The longest history that is read, in items.
        user_numbers: Numbers made of a user's columns.
        user_categories: Values of each categorical column of users, the unknown one included.
        item_numbers: Numbers made of an item's columns.
        item_categories: Values of each categorical column of items, the unknown one included.
    """

    users: int
    items: int
    trained_items: int
    max_history: int
    user_numbers: int = 0
    user_categories: tuple[int, ...] = ()
    item_numbers: int = 0
    item_categories: tuple[int, ...] = ()


class RecommenderProcessor(InputProcessor):
    """What turns users and items into numbers and back, and travels with a run.

    Attributes:
        max_history: The longest history that is read, in items.
        users: The users of training, by their numbers less 1.
        items: The items, likewise.
        rows: Of each training user the numbers of their items, in order of time, where scores count
            what followed what; else None.
    """

    max_history: int
    users: tuple[str, ...]
    items: tuple[str, ...]
    rows: tuple[NDArray[np.int64], ...] | None = None

    def title(self, number: int) -> str:
        """Return what an item is called; its id where it has no name."""
        raise NotImplementedError

    @property
    def sizes(self) -> RecommendationSizes:
        """What a model takes from it."""
        raise NotImplementedError

    def item_columns(self) -> Batch:
        """Return the columns of all items: ``numbers`` (N + 1, I) float32 and ``categories``
        (N + 1, K) int64, the unknown item's first."""
        raise NotImplementedError


@runtime_checkable
class Recommender(Protocol):
    """A model that scores items for users, by what it knows of either.

    Its forward takes the tensors below by name, and reads those that it needs. The score of an item
    is the product of a user's state with the item's vector, plus the item's bias.

    Attributes:
        places_untrained_items: Whether it can tell apart items that training has not seen.
        reads_order: Whether it reads histories, and says something at each position.
        hides_items: Whether it predicts items that are hidden within a history, from both sides.
    """

    places_untrained_items: bool
    reads_order: bool
    hides_items: bool

    def forward(
        self,
        users: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        numbers: Tensor | None = None,
        categories: Tensor | None = None,
        candidates: Tensor | None = None,
    ) -> Tensor:
        """Return scores.

        Args:
            users: (B,) int64, 0 for one that training has not seen.
            tokens: (B, T) int64, the numbers of items in order of time, 0 in front of the first.
            lengths: (B,) int64, what of each row is no padding, at least 1.
            numbers: (B, I) float32 of the users' columns.
            categories: (B, K) int64 of the users' columns.
            candidates: (B, M) int64, the items to score; default: all, in the order of their
                numbers, the unknown item's first.

        Returns:
            (B, N + 1) or (B, M); of a model that says something at each position
            (B, T, N + 1) or (B, T, M).
        """

    def user_states(
        self,
        users: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        numbers: Tensor | None = None,
        categories: Tensor | None = None,
    ) -> Tensor:
        """Return (B, C), what the next item of each user is scored by."""

    def item_vectors(self) -> Tensor:
        """Return (N + 1, C), the unknown item's first."""

    def item_biases(self) -> Tensor:
        """Return (N + 1,)."""


@runtime_checkable
class ReadsCatalogue(Protocol):
    """A recommender that knows items by their columns."""

    def read_catalogue(self, numbers: Tensor, categories: Tensor) -> None:
        """Take the columns of all items: (N + 1, I) float32 and (N + 1, K) int64."""


@runtime_checkable
class MakesLists(Protocol):
    """A task that predicts lists of items, by ``list_options`` of its ``predict``."""

    list_options: ClassVar[tuple[str, ...]]

    def in_lines(self, predicted: Any) -> list[str]:
        """Return a prediction in lines for people."""


@runtime_checkable
class HasSquaredNorms(Protocol):
    """A recommender whose vectors may be kept small."""

    def squared_norms(self, users: Tensor, items: Tensor) -> Tensor:
        """Return a scalar: the squares of what is known of users (B,) and of items (B, M), each
        vector with its bias, added up."""


def score_items(
    states: Tensor, vectors: Tensor, biases: Tensor, candidates: Tensor | None
) -> Tensor:
    """Return the scores of items by states (B, C) or (B, T, C): (..., N + 1), or (..., M) of
    candidates (B, M)."""
    if candidates is None:
        return states @ vectors.T + biases
    chosen = vectors[candidates]  # (B, M, C)
    if states.dim() == 2:
        return torch.einsum("bc,bmc->bm", states, chosen) + biases[candidates]
    return states @ chosen.transpose(1, 2) + biases[candidates][:, None]
