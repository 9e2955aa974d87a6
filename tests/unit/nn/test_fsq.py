"""Finite scalar quantisation: values, codes and gradients by the paper."""

from __future__ import annotations

import math

import pytest
import torch

from groundup.core.errors import DataError
from groundup.nn.fsq import FiniteScalarQuantizer

LEVELS = ([2], [3], [4, 3], [8, 5, 2])


@pytest.mark.parametrize("levels", LEVELS)
def test_every_code_is_reached_and_comes_back(levels: list[int]) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    size = math.prod(levels)
    assert quantizer.codebook_size == size
    every = torch.arange(size).view(1, 1, size)
    values = quantizer.from_codes(every)
    assert values.abs().max() <= 1
    for place, count in enumerate(levels):
        assert len(values[:, place].unique()) == count
    # Numbers that are not bounded yet reach every code.
    line = torch.linspace(-4, 4, 34).expand(len(levels), -1)
    numbers = torch.stack(torch.meshgrid(*line, indexing="ij")).flatten(1)
    found = quantizer.codes(numbers[None, :, None])
    assert sorted(found.unique().tolist()) == list(range(size))
    rounded = quantizer(numbers[None, :, None])
    torch.testing.assert_close(rounded, quantizer.from_codes(found))


def test_the_gradient_is_that_of_the_bound() -> None:
    quantizer = FiniteScalarQuantizer([5])
    numbers = torch.linspace(-2, 2, 9, dtype=torch.float32).view(1, 1, 1, 9).requires_grad_()
    quantizer(numbers).sum().backward()
    reach = 4 * 1.001 / 2
    expected = (1 - numbers.detach().tanh() ** 2) * reach / 2
    torch.testing.assert_close(numbers.grad, expected)


def test_halves_round_to_the_same_value_in_bfloat16() -> None:
    quantizer = FiniteScalarQuantizer([8, 6])
    numbers = (torch.randn(1, 2, 4, 4) * 2).bfloat16()
    assert torch.equal(quantizer.codes(numbers), quantizer.codes(numbers.float()))


@pytest.mark.parametrize("code", [-1, 12])
def test_codes_outside_of_the_codebook_are_refused(code: int) -> None:
    with pytest.raises(DataError, match=f"has the code {code}; allowed: 0 to 11, the codebook's"):
        FiniteScalarQuantizer([4, 3]).from_codes(torch.tensor([[[0, code]]]))
