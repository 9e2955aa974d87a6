"""RMSNorm computes what torch's does, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from groundup.nn.norm import RMSNorm


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 4, 7)])
@pytest.mark.parametrize("smallest", [-1.0, 0.5, None])
def test_rms_norm_and_its_gradients_are_torchs(
    dtype: torch.dtype, tolerance: float, shape: tuple[int, ...], smallest: float | None
) -> None:
    """With ``smallest`` the weight is frozen; -1 makes one of them 0, which cannot be divided out
    of the output."""
    torch.manual_seed(0)
    ours, theirs = (norm(7, 1e-6).to(dtype) for norm in (RMSNorm, nn.RMSNorm))
    for norm in (ours, theirs):
        norm.load_state_dict(
            {"weight": torch.linspace(-1.0 if smallest is None else smallest, 2, 7)}
        )
        norm.weight.requires_grad_(smallest is None)
    one = torch.randn(shape, dtype=dtype).requires_grad_()
    other, above = one.detach().clone().requires_grad_(), torch.randn(shape, dtype=dtype)
    mine, its = ours(one), theirs(other)
    mine.backward(above)
    its.backward(above)
    assert one.grad is not None
    assert other.grad is not None
    assert (ours.weight.grad is None) == (smallest is not None)
    for got, expected in (
        (mine, its),
        (one.grad, other.grad),
        (ours.weight.grad, theirs.weight.grad),
    ):
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_without_a_gradient_it_is_torchs_own() -> None:
    x = torch.randn(4, 7)
    ours, theirs = RMSNorm(7, 1e-6), nn.RMSNorm(7, 1e-6)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
