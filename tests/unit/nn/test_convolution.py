"""Convolutions that are products of matrices on small maps."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.models.cnn import CNNConfig
from groundup.nn.convolution import Convolution


@pytest.mark.parametrize(
    ("kernel", "stride", "height", "width"),
    [(3, 1, 4, 3), (3, 2, 7, 5), (3, 2, 4, 4), (1, 2, 3, 4), (5, 1, 3, 2)],
)
def test_as_a_product_it_is_the_same_convolution(
    kernel: int, stride: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    layer = Convolution(6, 5, kernel, stride).double()
    maps = torch.randn(3, 6, height, width, dtype=torch.float64, requires_grad=True)
    wanted, found = layer(maps), layer.as_product(maps)
    torch.testing.assert_close(found, wanted)
    gradient = torch.randn_like(wanted)
    each = [
        torch.autograd.grad(outputs, (maps, layer.weight), gradient) for outputs in (wanted, found)
    ]
    torch.testing.assert_close(each[1], each[0])


STRIDED = """
import torch
from groundup.nn.convolution import Convolution

torch.set_num_threads(1)
layer = Convolution(4, 8, 1, 2).to(memory_format=torch.channels_last)
for _ in range(60):  # a write past the end of a buffer is seen when the memory is freed
    maps = torch.randn(16, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    layer(maps).square().sum().backward()
    rest = [torch.randn(number % 97 + 1) for number in range(5)]
"""


@pytest.mark.slow
def test_the_gradient_of_a_strided_projection_stays_inside_its_memory() -> None:
    ended = subprocess.run([sys.executable, "-c", STRIDED], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_strided_projection_is_the_same_convolution() -> None:
    torch.manual_seed(0)
    layer = Convolution(4, 8, 1, 2).to(memory_format=torch.channels_last)
    maps = torch.randn(2, 4, 7, 6).contiguous(memory_format=torch.channels_last)
    found, wanted = layer(maps), F.conv2d(maps.contiguous(), layer.weight.contiguous(), stride=2)
    torch.testing.assert_close(found, wanted)
    gradient = torch.randn_like(wanted)
    each = [torch.autograd.grad(outputs, layer.weight, gradient) for outputs in (wanted, found)]
    torch.testing.assert_close(each[1], each[0])


def test_in_bf16_small_maps_are_products_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, products = Convolution(3, 4, 3), list[tuple[int, ...]]()
    as_product = Convolution.as_product

    def counted(self: Convolution, maps: Tensor) -> Tensor:
        products.append(tuple(maps.shape))
        return as_product(self, maps)

    monkeypatch.setattr(Convolution, "as_product", counted)
    small, large = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 5, 5)
    layer(small)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(small)
        layer(large)
        wanted = layer.eval()(small)
    assert products == [(2, 3, 4, 4)]
    assert found.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.02)


def test_pooling_before_relu_changes_nothing() -> None:
    torch.manual_seed(0)
    model = CNNConfig(channels=(4,), hidden=(), input_shape=(1, 8, 8), outputs=3).build()
    inputs = torch.randn(2, 1, 8, 8)
    convolved = model.blocks[0][0](inputs)  # type: ignore[index]
    wanted = F.max_pool2d(F.relu(convolved), 2).flatten(1)
    assert torch.equal(model.features(inputs), wanted)
    parameters = list(model.blocks.parameters())
    ours, theirs = (
        torch.autograd.grad(x.square().sum(), parameters) for x in (model.features(inputs), wanted)
    )
    torch.testing.assert_close(ours, theirs)
