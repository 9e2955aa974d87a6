"""Adapters against the equations of their papers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.lora.adapters import adapted, attach
from groundup.recipe.adapter import Adapter
from groundup.recipe.recipe import Optim

SETTINGS = [
    Adapter(rank=3, alpha=5.0),
    Adapter(rank=3, alpha=5.0, rank_stabilized=True),
    Adapter(name="dora", rank=3, alpha=5.0),
    Adapter(name="dora", rank=3, alpha=5.0, rank_stabilized=True),
]
KINDS = ["lora", "lora-rs", "dora", "dora-rs"]


# ------------------------------------------------------------------------------------------------
# the papers' equations
class Reference(nn.Module):
    """W + s B A (LoRA, equation 3); m * (W + s B A) / |W + s B A| with a constant norm (DoRA,
    equations 5 and 11)."""

    def __init__(self, linear: nn.Linear, a: Tensor, settings: Adapter) -> None:
        super().__init__()
        self.w, self.bias = linear.weight.detach().clone(), linear.bias
        self.a, self.b = (
            nn.Parameter(a.detach().clone()),
            nn.Parameter(torch.zeros(len(self.w), len(a))),
        )
        self.s = settings.alpha / (math.sqrt(len(a)) if settings.rank_stabilized else len(a))
        lengths = torch.tensor([math.sqrt(sum(x * x for x in row)) for row in self.w.tolist()])
        self.m = nn.Parameter(lengths) if settings.name == "dora" else None

    def forward(self, x: Tensor) -> Tensor:
        v = self.w + self.s * self.b @ self.a
        if self.m is not None:
            v = torch.diag(self.m / v.detach().square().sum(1).sqrt()) @ v
        out = x @ v.T
        return out if self.bias is None else out + self.bias.detach()


def pair(settings: Adapter, bias: bool) -> tuple[nn.Sequential, nn.Sequential]:
    """Return two small networks of which ours has adapters and theirs is the reference."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(7, 6, bias=bias), nn.Tanh(), nn.Linear(6, 5, bias=bias))
    plain = [ours[0], ours[2]]
    attach(ours, settings.model_copy(update={"targets": ("*",)}))
    theirs = nn.Sequential(
        *(Reference(each, ours[i].lora_A, settings) for each, i in zip(plain, (0, 2), strict=True))
    )
    theirs.insert(1, nn.Tanh())
    for name, parameter in ours.named_parameters():
        parameter.requires_grad_(name.rpartition(".")[2] in ("lora_A", "lora_B", "magnitude"))
    return ours, theirs


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return A, B and, with DoRA, the magnitudes of each layer in turn."""
    names = ("lora_A", "lora_B", "magnitude") if adapted(model) else ("a", "b", "m")
    layers = (model.get_submodule("0"), model.get_submodule("2"))
    return [p for layer in layers for name in names if (p := getattr(layer, name)) is not None]


def losses(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 50) -> list[float]:
    found = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(step % 5)
        x, y = (
            torch.randn(8, 7, generator=generator),
            torch.randint(0, 5, (8,), generator=generator),
        )
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("settings", SETTINGS, ids=KINDS)
def test_outputs_and_gradients(settings: Adapter, bias: bool) -> None:
    ours, theirs = pair(settings, bias)
    with torch.no_grad():
        for one, other in zip(trained(ours), trained(theirs), strict=True):
            one.add_(0.1 * torch.randn(one.shape))
            other.copy_(one)
    x = torch.randn(4, 3, 7)
    one, other = ours(x), theirs(x)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    weights = torch.randn(one.shape)
    (one * weights).sum().backward()
    (other * weights).sum().backward()
    for mine, its in zip(trained(ours), trained(theirs), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-5)
    assert ours[0].linear_weight.grad is None


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("settings", SETTINGS, ids=KINDS)
def test_fifty_steps(settings: Adapter, optimizer: str) -> None:
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = (
        (lambda p: torch.optim.SGD(p, lr=0.3))
        if optimizer == "sgd"
        else (lambda p: torch.optim.AdamW(p, lr=1e-2))
    )
    ours, theirs = pair(settings, True)
    one, other = losses(ours, make(trained(ours))), losses(theirs, make(trained(theirs)))
    assert one == pytest.approx(other, abs=1e-5)
    assert one[-1] < one[4] - 0.02  # the same batch


def test_rates_of_the_two_matrices() -> None:
    """LoRA+: with SGD the first change of B is ``ratio`` times what it is without."""
    from groundup.training.optimizers import build_optimizers

    moved = []
    for ratio in (1.0, 16.0):
        ours, _ = pair(Adapter(rank=3), True)
        optimizer = build_optimizers(
            Optim(name="sgd", lr=0.1, weight_decay=0.0),
            ours.named_parameters(),
            Adapter(lora_plus_ratio=ratio),
        )
        optimizer.set_lr(0.1)
        torch.manual_seed(1)
        with torch.no_grad():
            ours[0].lora_B.fill_(0.1)
        before = [p.detach().clone() for p in (ours[0].lora_A, ours[0].lora_B)]
        ours(torch.randn(8, 7)).square().sum().backward()
        optimizer.step()
        moved.append([p - q for p, q in zip((ours[0].lora_A, ours[0].lora_B), before, strict=True)])
    torch.testing.assert_close(moved[0][0], moved[1][0])
    torch.testing.assert_close(16 * moved[0][1], moved[1][1], rtol=1e-5, atol=1e-6)
