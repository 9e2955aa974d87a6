"""Products of a few rows with a layer's weight are those of the layer, however the weight is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from groundup.generation import products
from groundup.generation.products import join_products, linear_product


@pytest.fixture(params=["packed", "another torch"])
def packing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Whether this torch can pack weights."""
    products._packing.cache_clear()
    if request.param == "another torch":
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    yield products._packing() is not None
    products._packing.cache_clear()


@pytest.mark.parametrize("rows", [1, 2, 16, 40])
@pytest.mark.parametrize("sizes", [(8, 16), (300, 256), (4100, 256)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_product_is_the_layers(
    rows: int, sizes: tuple[int, int], with_bias: bool, packing: bool
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(sizes)
    bias = torch.randn(sizes[0]) if with_bias else None
    x = torch.randn(rows, sizes[1])
    with torch.no_grad():
        found = linear_product(weight, bias, packed=True)(x)
        again = linear_product(weight, bias, packed=True)(x)
    torch.testing.assert_close(found, F.linear(x, weight, bias), rtol=1e-5, atol=1e-4)
    assert torch.equal(found, again)
    assert found.is_contiguous()


def test_a_copy_follows_the_weights_and_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = products._packing()
    if library is None:
        pytest.skip("this torch cannot pack weights")
    made = []

    def reorder(weight: torch.Tensor, rows: int | None) -> torch.Tensor:
        made.append(weight.shape)
        copy: torch.Tensor = library.reorder(weight, rows)
        return copy

    monkeypatch.setattr(products, "_packing", lambda: products._Packing(reorder, library.multiply))
    layers = [nn.Linear(256, 300), nn.Linear(256, 40)]
    x = torch.randn(4, 256)
    with torch.no_grad():
        joined = join_products(layers, packed=True)
        for change in (0.0, 1.0):
            if change:
                layers[1].weight.add_(change)
            for _ in range(3):
                expected = torch.cat([layer(x) for layer in layers], 1)
                torch.testing.assert_close(joined(x), expected, rtol=1e-5, atol=1e-4)
    assert made == [(340, 256), (340, 256)]


def test_a_weight_of_another_kind_is_not_packed() -> None:
    weight = torch.randn(300, 256, dtype=torch.float64)
    x = torch.randn(4, 256, dtype=torch.float64)
    found = linear_product(weight, None, packed=True)(x)
    torch.testing.assert_close(found, x @ weight.t(), rtol=1e-12, atol=1e-12)
