"""Our grouping of parameters changes nothing but who is decayed: the updates are PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.models.gpt import GPTConfig
from groundup.recipe.recipe import Optim
from groundup.training import muon
from groundup.training.optimizers import Optimizers, build_optimizers

STEPS = 6
OPTIMS = {
    "adamw": Optim(name="adamw", lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.2),
    "adam": Optim(name="adam", lr=0.01, weight_decay=0.2),
    "sgd": Optim(name="sgd", lr=0.01, weight_decay=0.2),
    "nesterov": Optim(name="sgd", lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.2),
    "muon": Optim(name="muon", lr=0.01, weight_decay=0.2),
}


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4))


def gradients(step: int, model: nn.Module) -> list[Tensor]:
    drawn = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=drawn) for p in model.parameters()]


def train(model: nn.Module, optimizer: Any, first: int = 0, last: int = STEPS) -> None:
    for step in range(first, last):
        for parameter, gradient in zip(model.parameters(), gradients(step, model), strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad()


def ours(name: str, model: nn.Module) -> Optimizers:
    return build_optimizers(OPTIMS[name], model.named_parameters())


def theirs(name: str, model: nn.Module) -> torch.optim.Optimizer:
    optim = OPTIMS[name]
    matrices, others = (
        [p for p in model.parameters() if p.ndim > 1],
        [p for p in model.parameters() if p.ndim < 2],
    )
    groups = [{"params": matrices, "weight_decay": 0.2}, {"params": others, "weight_decay": 0.0}]
    if optim.name == "sgd":
        return torch.optim.SGD(groups, lr=0.01, momentum=optim.momentum, nesterov=optim.nesterov)
    cls = torch.optim.AdamW if optim.name == "adamw" else torch.optim.Adam
    return cls(groups, lr=0.01, betas=optim.betas, eps=optim.eps)


def assert_same_weights(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for (name, mine), (_, its) in zip(
        one.named_parameters(), other.named_parameters(), strict=True
    ):
        torch.testing.assert_close(mine, its, msg=name, **(tolerance or {"rtol": 0.0, "atol": 0.0}))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "nesterov"])
def test_updates_are_those_of_torch(name: str) -> None:
    one, other = small_model(), small_model()
    train(one, ours(name, one))
    train(other, theirs(name, other))
    assert_same_weights(one, other, rtol=1e-5, atol=1e-6)


def test_muon_updates_hidden_matrices_as_torch_does_and_the_rest_with_adamw() -> None:
    one, other = small_model(), small_model()
    train(one, ours("muon", one))
    matrices, others = (
        [p for p in other.parameters() if p.ndim > 1],
        [p for p in other.parameters() if p.ndim < 2],
    )
    hidden = torch.optim.Muon(
        matrices, lr=0.01, weight_decay=0.2, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(others, lr=0.01, weight_decay=0.0, betas=(0.9, 0.95))
    for step in range(STEPS):
        for parameter, gradient in zip(other.parameters(), gradients(step, other), strict=True):
            parameter.grad = gradient
        hidden.step()
        adamw.step()
    assert_same_weights(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMS)
def test_going_on_from_the_state_is_going_on(name: str) -> None:
    whole, first, second = small_model(), small_model(), small_model()
    train(whole, ours(name, whole))
    optimizer = ours(name, first)
    train(first, optimizer, 0, 3)
    second.load_state_dict(first.state_dict())
    resumed = ours(name, second)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.state_dict().keys() == optimizer.state_dict().keys()
    train(second, resumed, 3)
    assert_same_weights(whole, second)


@pytest.mark.parametrize("name", OPTIMS)
def test_the_state_is_tensors_by_parameter_and_a_copy_when_loaded(name: str) -> None:
    model = small_model()
    optimizer = ours(name, model)
    train(model, optimizer)
    state = optimizer.state_dict()
    parameters = dict(model.named_parameters())
    assert all(key.rpartition("/")[0] in parameters for key in state)
    assert all(isinstance(value, Tensor) for value in state.values())
    kept = {key: value.clone() for key, value in state.items()}
    other = small_model()
    resumed = ours(name, other)
    resumed.load_state_dict(state)
    train(other, resumed, 3)
    assert all(torch.equal(value, kept[key]) for key, value in state.items())
    assert (state == {}) == (name == "sgd")


def test_only_matrices_are_decayed() -> None:
    model = GPTConfig(
        vocabulary_size=11, layers=1, width=8, heads=2, norm="layernorm", bias="all"
    ).build()
    names = {parameter: name for name, parameter in model.named_parameters()}
    for optim in OPTIMS.values():
        for part in build_optimizers(optim, model.named_parameters()).parts:
            for group in part.param_groups:
                for parameter in group["params"]:
                    assert group["weight_decay"] == (0.2 if parameter.ndim > 1 else 0.0), names[
                        parameter
                    ]


@pytest.mark.parametrize("tied", [True, False])
def test_muon_takes_hidden_matrices_and_nothing_else(tied: bool) -> None:
    config = GPTConfig(
        vocabulary_size=11, layers=2, width=8, heads=2, positions="learned", tied_embeddings=tied
    )
    model = config.build()
    muon, adamw = build_optimizers(OPTIMS["muon"], model.named_parameters()).parts
    names = {parameter: name for name, parameter in model.named_parameters()}
    taken = {names[p] for group in muon.param_groups for p in group["params"]}
    assert isinstance(muon, torch.optim.Muon)
    assert taken == {
        name for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2
    }
    rest = {names[p] for group in adamw.param_groups for p in group["params"]}
    assert taken | rest == set(names.values())
    assert not taken & rest


@pytest.mark.parametrize("name", OPTIMS)
def test_the_learning_rate_reaches_every_group(name: str) -> None:
    optimizer = ours(name, small_model())
    optimizer.set_lr(0.5)
    assert {float(group["lr"]) for part in optimizer.parts for group in part.param_groups} == {0.5}


def test_frozen_parameters_are_left_alone() -> None:
    model = small_model()
    frozen = next(model.parameters()).requires_grad_(False)
    parts = build_optimizers(OPTIMS["adamw"], model.named_parameters()).parts
    assert all(
        parameter is not frozen
        for part in parts
        for group in part.param_groups
        for parameter in group["params"]
    )


@pytest.mark.parametrize("shapes", [[(8, 8)] * 3, [(4, 8), (8, 4), (4, 8), (6, 6)]])
def test_muon_orthogonalises_matrices_of_one_shape_together_as_torch_does_one_by_one(
    shapes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "_LARGEST", 70)  # so that batches are cut as well
    torch.manual_seed(0)
    mine = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    its = [nn.Parameter(p.detach().clone()) for p in mine]
    one = muon.Muon(mine, 0.01, 0.2)
    other = torch.optim.Muon(
        its, lr=0.01, weight_decay=0.2, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        for p, q in zip(mine, its, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        one.step()
        other.step()
    for p, q in zip(mine, its, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=2e-3)  # products in bf16
        assert one.state[p].keys() == other.state[q].keys()
        assert torch.equal(one.state[p]["momentum_buffer"], other.state[q]["momentum_buffer"])
