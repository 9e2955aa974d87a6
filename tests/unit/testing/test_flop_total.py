"""The sum of FLOPs is that of PyTorch's own counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from groundup.testing.flops import FlopTotal

MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.ConvTranspose2d(4, 2, 2)),
        (2, 3, 6, 6),
    ),
    "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
    "recurrence": (lambda: nn.GRU(4, 6, batch_first=True), (2, 5, 4)),
}


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_that_of_pytorchs_counter(name: str, backward: bool) -> None:
    make, shape = MODELS[name]
    model = make()
    own, theirs = FlopTotal(), FlopCounterMode(display=False)
    for counter in (own, theirs):
        inputs = torch.randn(shape, requires_grad=backward)
        with (
            counter,
            sdpa_kernel(SDPBackend.MATH),
            torch.backends.mkldnn.flags(enabled=False),
            torch.set_grad_enabled(backward),
        ):
            found = model(inputs)
            if backward:
                (found[0] if isinstance(found, tuple) else found).sum().backward()
    assert own.flops == theirs.get_total_flops() > 0
