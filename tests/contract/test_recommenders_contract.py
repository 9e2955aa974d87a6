"""What every model that recommends keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_models_contract import WITHOUT_GRADIENT
from torch import Tensor

from groundup.contracts.recommendation import Recommender, score_items
from groundup.core.registry import lookup
from groundup.core.settings import validate
from groundup.testing import check_model

SIZES = {
    "users": 6,
    "items": 9,
    "trained_items": 9,
    "max_history": 5,
    "user_numbers": 2,
    "user_categories": [3, 4],
    "item_numbers": 3,
    "item_categories": [2],
}
RECOMMENDERS: dict[str, list[dict[str, Any]]] = {
    "matrix_factorization": [
        {"width": 4, "users": 6, "items": 9, "dropout": 0.1},
        {"width": 4, "users": 6, "items": 9, "biases": False},
    ],
    "two_tower": [
        {"width": 4, "hidden": 6, "catalogue": SIZES, "dropout": 0.1},
        {"width": 4, "hidden": 0, "catalogue": SIZES, "user_ids": False},
    ],
    "sequence_recommender": [
        {"width": 8, "layers": 1, "items": 9, "context_length": 5, "dropout": 0.1},
        {
            **{"width": 8, "layers": 2, "items": 9, "context_length": 5},
            **{"attention": "masked", "tied_embeddings": False},
        },
        {
            **{"width": 8, "layers": 1, "heads": 2, "items": 9, "context_length": 5},
            **{"positions": "distance", "scores": "cosine"},
        },
        {
            **{"width": 8, "layers": 1, "heads": 2, "items": 9, "context_length": 5},
            **{"attention": "masked", "positions": "distance", "tied_embeddings": False},
        },
    ],
}
CASES = [(name, index) for name in RECOMMENDERS for index in range(len(RECOMMENDERS[name]))]
# Of an item that is known by its column alone nothing tells the first category apart here.
WITHOUT = (*WITHOUT_GRADIENT, "items.numbers.weight")


def settings_of(name: str, index: int) -> Any:
    return validate(lookup("model", name), RECOMMENDERS[name][index], "recipe.model")


def asked(name: str) -> dict[str, Tensor]:
    """Return what four users are, and what they did."""
    drawn = torch.Generator().manual_seed(0)
    inputs = {
        "tokens": torch.randint(1, 10, (4, 5), generator=drawn),
        "users": torch.tensor([1, 2, 3, 6]),
        "lengths": torch.tensor([5, 5, 5, 5]),
    }
    if name == "two_tower":
        inputs["numbers"] = torch.randn(4, 2, generator=drawn)
        inputs["categories"] = torch.randint(0, 3, (4, 2), generator=drawn)
    return inputs


@pytest.mark.parametrize(("name", "index"), CASES)
def test_scores_are_products_with_the_items_vectors(name: str, index: int) -> None:
    torch.manual_seed(0)
    model: Any = settings_of(name, index).build().eval()
    assert isinstance(model, Recommender)
    inputs = asked(name)
    with torch.no_grad():
        scores = model(**inputs)
        assert scores.shape[-1] == 10
        states = model.user_states(**inputs)
        again = score_items(states, model.item_vectors(), model.item_biases(), None)
        last = scores[:, -1] if model.reads_order else scores
        # A user's own bias moves all of their scores alike.
        moved = last - again
        torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), rtol=1e-5, atol=1e-5)
        candidates = torch.tensor([[1, 5, 0], [2, 2, 9], [3, 4, 5], [9, 8, 7]])
        some = model(**inputs, candidates=candidates)
        index_of = candidates if scores.dim() == 2 else candidates[:, None].expand(-1, 5, -1)
        torch.testing.assert_close(some, scores.gather(-1, index_of), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "index"), [case for case in CASES if case[0] != "matrix_factorization"]
)
def test_recommenders_keep_their_contract(name: str, index: int) -> None:
    check_model(settings_of(name, index), asked(name), untrained=WITHOUT)


def test_users_are_told_apart_by_their_numbers_alone() -> None:
    torch.manual_seed(0)
    model = settings_of("matrix_factorization", 0).build().eval()
    scores = model(torch.tensor([1, 2, 0]))
    assert not torch.allclose(scores[0], scores[1])
    assert (scores[2] == 0).all(), "of an unknown user nothing but the biases is known"
