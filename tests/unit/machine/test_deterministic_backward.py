"""Gradients on a GPU come from deterministic algorithms alone, or the run ends with a word why."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.core.errors import TrainingError
from groundup.machine import devices


class _Undecided(torch.autograd.Function):
    """An operation whose backward pass says what PyTorch's say on a GPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, message: str) -> Tensor:
        ctx.message = message
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        if ctx.message:
            raise RuntimeError(ctx.message)
        assert torch.get_deterministic_debug_mode() == 2
        return grads[0], None


@pytest.mark.parametrize(("asks_again", "given"), [(False, None), (True, None), (False, ":16:8")])
def test_products_are_promised_once(
    monkeypatch: pytest.MonkeyPatch, asks_again: bool, given: str | None
) -> None:
    name = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(name, given)
    seen = []

    def product(one: Tensor, other: Tensor) -> Tensor:
        seen.append(os.environ.get(name))
        if asks_again and not seen[-1]:
            raise RuntimeError("this operation is not deterministic because it uses CuBLAS")
        return one

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(torch, "ones", lambda *sizes, device: torch.zeros(sizes))
    devices._promise_deterministic_products.__wrapped__()
    assert seen == ([] if given else [":4096:8", None])
    assert os.environ.get(name) == (given or (":4096:8" if asks_again else None))
    monkeypatch.delenv(name, raising=False)


def _machine(**given: Any) -> Any:
    return SimpleNamespace(**{"device": "cuda", "deterministic": True, **given})


def _loss(x: Tensor, message: str) -> Tensor:
    made: Tensor = _Undecided.apply(x, message)  # type: ignore[no-untyped-call]
    return made.sum()


@pytest.fixture(autouse=True)
def _mode_as_before() -> Any:
    before = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(before)


def test_backward_is_strict_and_what_comes_after_is_not() -> None:
    x = torch.ones(2, requires_grad=True)
    with devices.deterministic_backward(_machine()):
        _loss(x, "").backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1]
    assert torch.get_deterministic_debug_mode() == 1


def test_an_operation_without_such_an_algorithm_is_named() -> None:
    x = torch.ones(2, requires_grad=True)
    message = "pool_backward_cuda does not have a deterministic implementation, but you set"
    with pytest.raises(TrainingError) as error, devices.deterministic_backward(_machine()):
        _loss(x, message).backward()
    assert "pool_backward_cuda has no deterministic algorithm" in str(error.value)
    assert "Set machine.deterministic: false" in str(error.value)
    assert torch.get_deterministic_debug_mode() == 1


def test_other_errors_stay_what_they_are_and_nothing_is_asked_where_nothing_is_wanted() -> None:
    x = torch.ones(2, requires_grad=True)
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        devices.deterministic_backward(_machine()),
    ):
        _loss(x, "out of memory").backward()
    torch.set_deterministic_debug_mode(0)
    for machine in (_machine(deterministic=False), _machine(device="cpu")):
        with devices.deterministic_backward(machine):
            assert torch.get_deterministic_debug_mode() == 0
