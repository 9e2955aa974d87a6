"""Weights in 4 bits: how near they are, and that both ways to multiply give the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.nn.lowbit.int4 import GROUP, Int4Weight, fits_int4, quantize_int4
from groundup.nn.lowbit.int8 import Int8Weight, join_rows

OPERATORS: tuple[Any, Any] = ("int4pack", "dequantize")


def random(rows: int, columns: int = 3 * GROUP, seed: int = 0) -> torch.Tensor:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return weight * 0.02


@pytest.mark.parametrize("shift", [0.0, 0.1, -3.0])
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_weight_is_off_by_half_a_step_and_the_rounding_of_its_constants(
    operator: Any, shift: float
) -> None:
    weight = random(32) + shift
    weight[0] = 0
    weight[1, :GROUP] = 0.5 + shift
    weight[2, 5] = 9.0
    found = Int4Weight.quantized(weight, operator).dequantized()
    groups = weight.view(32, -1, GROUP)
    steps = (groups.amax(-1) - groups.amin(-1)) / 15
    # bfloat16 keeps 8 bits: the scale, 8 times, and the middle are each off by 1/256 at most.
    bounds = steps / 2 + (groups.abs().amax(-1) + 16 * steps) / 256
    errors = (found - weight).abs().view(32, -1, GROUP)
    assert (errors <= bounds[..., None] + 1e-6).all()
    assert torch.equal(found[0], weight[0])
    # Where the middle rounds little, it is half a step.
    if not shift:
        assert (errors[3:] <= 0.56 * steps[3:, :, None]).all()


def test_numbers_on_the_grid_stay_and_five_bits_a_weight_are_kept() -> None:
    weight = torch.arange(16.0).repeat(16, 6) * 0.25 - 1
    for operator in OPERATORS:
        stored = Int4Weight.quantized(weight, operator)
        assert torch.equal(stored.dequantized(), weight)
        assert stored.packed.nbytes + stored.scales.nbytes == weight.numel() * 5 / 8
    integers, scales = quantize_int4(weight)
    assert integers[0, :17].tolist() == [*range(16), 0]
    assert scales.shape == (3, 16, 2)
    assert scales[0, 0].tolist() == [0.25, 1.0]


@pytest.mark.parametrize("rows", [16, 48, 64, 192])
def test_the_operator_of_pytorch_and_dequantizing_are_the_same(rows: int) -> None:
    pack, plain = (Int4Weight.quantized(random(rows), each) for each in OPERATORS)
    assert torch.equal(pack.dequantized(), plain.dequantized())
    # One input at a time there is no sum: what is read out is the weight, rounded once.
    every_input = torch.eye(3 * GROUP)
    assert torch.equal(pack(every_input), plain(every_input).bfloat16().float())
    # Sums that float32 and bfloat16 hold exactly are the same in any order.
    whole = (torch.arange(rows * 96).view(rows, 96) % 16 / 8 - 1) * 0.5
    pack, plain = (Int4Weight.quantized(whole, each) for each in OPERATORS)
    few = torch.zeros(2, 96)
    few[0, :4] = torch.tensor([1.0, -2.0, 0.5, 4.0])
    few[1, 60:63] = 2.0
    assert torch.equal(pack(few), plain(few))
    assert torch.equal(plain(few), few @ whole.T)
    # Others are rounded to bfloat16 in the end.
    x = random(7, seed=1).bfloat16().float().view(1, 7, 96)
    found, expected = pack(x), plain(x)
    assert found.shape == (1, 7, rows)
    assert ((found - expected).abs() <= expected.abs() / 256 + expected.abs().max() / 256).all()


@pytest.mark.parametrize("operator", OPERATORS)
def test_joined_weights_share_memory_and_multiply_as_before(operator: Any) -> None:
    weights = [Int4Weight.quantized(random(rows, seed=rows), operator) for rows in (64, 128)]
    x = random(3, seed=9)
    before = [weight(x) for weight in weights]
    floats = [weight.dequantized() for weight in weights]
    joined = join_rows(weights)
    assert isinstance(joined, Int4Weight)
    assert torch.equal(joined(x), torch.cat(before, -1))
    assert torch.equal(joined.dequantized(), torch.cat(floats))
    for weight, expected, floating in zip(weights, before, floats, strict=True):
        assert torch.equal(weight(x), expected)
        assert torch.equal(weight.dequantized(), floating)
        for one, whole in ((weight.packed, joined.packed), (weight.scales, joined.scales)):
            assert one.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


def test_what_is_not_joined() -> None:
    narrow = Int4Weight.quantized(random(16), "int4pack")
    assert join_rows([narrow, narrow]) is None  # its bytes are laid out 64 rows at a time
    plain = Int4Weight.quantized(random(16), "dequantize")
    assert join_rows([plain, Int8Weight(random(16), "dequantize")]) is None
    assert join_rows([plain, plain]) is not None


@pytest.mark.parametrize(
    ("rows", "columns", "fits"), [(16, 32, True), (16, 48, False), (24, 32, False), (0, 32, True)]
)
def test_what_fits(rows: int, columns: int, fits: bool) -> None:
    assert fits_int4(torch.zeros(rows, columns)) is fits
