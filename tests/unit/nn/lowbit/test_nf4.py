"""Weights in 4 and 8 bits: what they stand for, what they take, and that gradients pass through
them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from groundup.nn.lora.adapters import (
    attach,
    dequantize_layers,
    detach,
    merge,
    unmerge,
)
from groundup.nn.lora.linear import AdaptedLinear
from groundup.nn.lowbit.nf4 import (
    NF4,
    QuantizedLinear,
    QuantizedWeight,
    dequantize,
    quantize,
    quantized_shapes,
)
from groundup.recipe.adapter import Adapter

KINDS: list[tuple[Any, bool]] = [("int8", False), ("nf4", False), ("nf4", True)]
SHAPES = [(1, 1), (3, 5), (7, 64), (33, 40), (300, 128)]


def weight(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[0]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_every_value_is_within_half_a_step(kind: Any, double: bool, shape: tuple[int, int]) -> None:
    before = weight(shape)
    stored = quantize(before, kind, double=double)
    after = dequantize(stored, shape)
    assert after.shape == before.shape
    assert after.dtype == torch.float32
    if kind == "int8":
        assert ((after - before).abs() <= before.abs().amax(1, keepdim=True) / 254 * 1.001).all()
        return
    blocks = F.pad(before.view(-1), (0, -before.numel() % 64)).view(-1, 64)
    largest = blocks.abs().amax(1, keepdim=True)
    widest = max(high - low for low, high in itertools.pairwise(NF4)) / 2
    slack = (largest.max() - largest.min()) / 510 if double else 0.0
    errors = F.pad((after - before).view(-1), (0, -before.numel() % 64)).view(-1, 64).abs()
    assert (errors <= largest * widest * 1.001 + slack + 1e-7).all()


@pytest.mark.parametrize("double", [False, True])
def test_two_values_a_byte_the_first_in_the_upper_half(double: bool) -> None:
    exact = torch.tensor(NF4).repeat(8)[None] * 0.5  # two blocks of the 16 values themselves
    stored = quantize(exact, "nf4", double=double)
    assert stored[0].shape == (2, 32)
    assert stored[0][0, :8].tolist() == [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF]
    assert torch.equal(dequantize(stored, (1, 128)), exact)
    zeros = torch.zeros(3, 64)
    assert torch.equal(dequantize(quantize(zeros, "nf4", double=double), (3, 64)), zeros)
    assert torch.equal(dequantize(quantize(zeros, "int8"), (3, 64)), zeros)


def test_the_values_are_quantiles_of_the_normal_distribution() -> None:
    """Equation 4 and appendix E of QLoRA: 8 quantiles below zero and 9 from zero on, scaled to
    reach from -1 to 1."""
    offset = torch.tensor((1 / 32 + 1 / 30) / 2, dtype=torch.float64)
    upper = torch.special.ndtri(torch.linspace(0.5, float(1 - offset), 9, dtype=torch.float64))
    lower = torch.special.ndtri(torch.linspace(float(offset), 0.5, 8, dtype=torch.float64))
    expected = torch.cat([lower / lower[0].abs(), upper[1:] / upper[-1]])
    assert (expected - torch.tensor(NF4, dtype=torch.float64)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "double", "share"),
    [("int8", False, 0.26), ("nf4", False, 0.145), ("nf4", True, 0.134)],
)
def test_what_it_takes(kind: Any, double: bool, share: float) -> None:
    stored = QuantizedWeight(weight((512, 512)), kind, double=double)
    assert stored.bytes <= share * 4 * 512 * 512
    assert not stored.state_dict()
    assert not list(stored.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_as_the_linear_layer_of_the_dequantized_weight(
    kind: Any, double: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    bias = nn.Parameter(torch.randn(33))
    layer = QuantizedLinear(QuantizedWeight(weight((33, 40)), kind, double=double), bias)
    kept: list[torch.Tensor] = []
    x = torch.randn(2, 3, 40, requires_grad=True)
    watching = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t)
    with watching, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        out = layer(x)
    assert out.dtype == dtype
    assert all(
        t.nbytes < 33 * 40 * 4 // 2 for t in kept
    )  # nothing as large as the weight is kept in between
    (found,) = torch.autograd.grad(out.float().sin().sum(), x)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        plain = F.linear(x, layer.weight, bias)
    (expected,) = torch.autograd.grad(plain.float().sin().sum(), x)
    limit = (1e-6 if dtype == torch.float32 else 0.04) * float(expected.abs().max())
    assert (out - plain).abs().max() <= limit
    assert found.dtype == x.dtype
    assert (found - expected).abs().max() <= limit


@pytest.mark.parametrize("name", ["lora", "dora"])
@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_an_adapter_beside_it(kind: Any, double: bool, name: Any) -> None:
    torch.manual_seed(0)
    own, bias = weight((12, 20)), nn.Parameter(torch.randn(12), requires_grad=False)
    stood_for = dequantize(quantize(own, kind, double=double), (12, 20))
    model = nn.Sequential(QuantizedLinear(QuantizedWeight(own, kind, double=double), bias))
    plain = nn.Sequential(nn.Linear(20, 12))
    plain.load_state_dict({"0.weight": stood_for, "0.bias": bias})
    settings, x = Adapter(name=name, rank=3, targets=("0",)), torch.randn(4, 20, requires_grad=True)
    for each in (model, plain):
        torch.manual_seed(1)
        attach(each, settings)
        each[0].lora_B.data.normal_()  # type: ignore[union-attr, operator]
    gradients = []
    for each in (model, plain):
        wanted = [x, each[0].lora_A, each[0].lora_B]
        gradients.append(torch.autograd.grad(each(x).sin().sum(), wanted))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-4)  # sums of hundreds, in float32
    with torch.no_grad():
        expected = plain(x)
        assert set(model.state_dict()) == set(plain.state_dict()) - {"0.weight"}
        assert quantized_shapes(model) == {"0": (12, 20)}
        for change in (
            lambda: None,
            lambda: merge(model),
            lambda: merge(model),
            lambda: unmerge(model),
        ):
            change()
            assert (model(x) - expected).abs().max() <= 1e-5
        merge(model)
        assert isinstance(model[0], AdaptedLinear)
        assert model[0].linear_weight.dtype == torch.float32
        detach(model)
        assert isinstance(model[0], QuantizedLinear)
        assert torch.equal(model[0].weight, stood_for)
        attach(model, settings)
        model[0].load_state_dict({k: v for k, v in plain[0].state_dict().items() if k != "weight"})
        dequantize_layers(model)
        assert isinstance(model[0], nn.Linear)
        assert (model(x) - expected).abs().max() <= 1e-5


@pytest.mark.slow
def test_as_bitsandbytes_has_it() -> None:
    """The same 16 values, codes and constants, so the same weights to the last bit.

    The second quantization is another: theirs is to 8-bit floats around the mean of all constants,
        ours to 256 equal
    steps between the smallest and the largest of 256 neighbours, which comes closer to the
    constants themselves.
    """
    functional = pytest.importorskip("bitsandbytes.functional")
    for shape in [*SHAPES, (1536, 576)]:
        own = weight(shape)
        codes, state = functional.quantize_4bit(own, blocksize=64, quant_type="nf4")
        stored = quantize(own, "nf4")
        assert torch.equal(state.code, torch.tensor(NF4))
        assert torch.equal(codes.view(-1), stored[0].view(-1)[: codes.numel()])
        assert torch.equal(state.absmax, stored[2])
        plain = functional.dequantize_4bit(codes, state)
        assert torch.equal(plain, dequantize(stored, shape))
        theirs = functional.quantize_4bit(
            own, blocksize=64, quant_type="nf4", compress_statistics=True
        )
        ours = dequantize(quantize(own, "nf4", double=True), shape)
        assert (ours - plain).abs().max() <= (
            functional.dequantize_4bit(*theirs) - plain
        ).abs().max() + 1e-7
