"""Convolution over images that is quick on small maps, too.

Shape legend: B images, C channels, H rows, W columns, K the kernel's height and width, P = H out
    x W out places.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Convolution"]

# Places of the output up to which products were quicker; at 49 both take the same time.
_SMALL = 16


class Convolution(nn.Conv2d):
    """A square convolution without bias; in bf16 on a CPU that on a small map is one matrix
    product.

    oneDNN's convolutions take most of a training step where a map has a few places and hundreds of
    channels: with 512 channels of 2 x 2 and 128 images, forward and backward take 390 ms of a core,
    and gathering every place's window and multiplying takes 30 ms. Results differ only in rounding,
    as those of two convolution algorithms do.

    Source:
        Chellapilla, Puri and Simard, 2006, "High performance convolutional neural networks for
        document processing", section 3.1.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        kernel: Height and width of the window, an odd number; the map is padded so that stride 1
            keeps its size.
        stride: Distance between the windows.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, C out, H out, W out) of (B, C, H, W)."""
        if self._is_small(input):
            return self.as_product(input)
        if self._overruns(input):
            # The same numbers: with a window of one place, a stride only leaves places out.
            step = self.stride[0]
            return F.conv2d(input[:, :, ::step, ::step], self.weight)
        return super().forward(input)

    def _overruns(self, maps: Tensor) -> bool:
        # oneDNN's kernel "jit_1x1:avx2" for the gradient of such weights first gathers every
        # stride-th place, and writes whole vectors of 8 channels: with 2 to 6 channels past the end
        # of its buffer, and the process aborts ("double free or corruption"). Seen with PyTorch
        # 2.13 on CPUs without AVX-512, for channels-last maps in fp32.
        strided = self.kernel_size[0] == 1 and self.stride[0] > 1
        return strided and maps.is_cpu and self.in_channels % 8 != 0 and torch.is_grad_enabled()

    def _is_small(self, maps: Tensor) -> bool:
        height, width = (-(-side // self.stride[0]) for side in maps.shape[2:])
        usual = maps.is_cpu and self.training and not torch.compiler.is_compiling()
        return usual and height * width <= _SMALL and torch.is_autocast_enabled("cpu")

    def as_product(self, maps: Tensor) -> Tensor:
        """Return the same as ``forward``, as the product of all windows and the weights."""
        if torch.is_autocast_enabled("cpu"):
            maps = maps.to(torch.get_autocast_dtype("cpu"))
        kernel = self.kernel_size[0]
        stride = self.stride[0]
        outputs = self.out_channels
        windows: Tensor = _Windows.apply(maps.permute(0, 2, 3, 1), kernel, stride)  # type: ignore[no-untyped-call]
        found = F.linear(windows, self.weight.permute(0, 2, 3, 1).reshape(outputs, -1))
        height, width = (-(-side // stride) for side in maps.shape[2:])
        return found.view(len(maps), height, width, outputs).permute(0, 3, 1, 2)


class _Windows(torch.autograd.Function):
    """The window of every place of zero-padded maps: (B P, K K C) of (B, H, W, C)."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, kernel: int, stride: int) -> Tensor:
        ctx.sizes = maps.shape, kernel, stride
        padding = kernel // 2
        padded = F.pad(maps, (0, 0, padding, padding, padding, padding))
        windows = padded.unfold(1, kernel, stride).unfold(2, kernel, stride)
        return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, kernel * kernel * maps.shape[3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (count, height, width, channels), kernel, stride = ctx.sizes
        padding = kernel // 2
        rows = -(-height // stride)
        columns = -(-width // stride)
        each = gradients[0].view(count, rows, columns, kernel, kernel, channels)
        # In float32, because K K windows overlap at a place.
        wide = torch.promote_types(torch.float32, each.dtype)
        shape = (count, height + 2 * padding, width + 2 * padding, channels)
        sums = torch.zeros(shape, dtype=wide)
        for i in range(kernel):
            for j in range(kernel):
                down = slice(i, i + stride * rows, stride)
                across = slice(j, j + stride * columns, stride)
                sums[:, down, across] += each[:, :, :, i, j]
        inside = sums[:, padding : padding + height, padding : padding + width]
        return inside.to(each.dtype), None, None
