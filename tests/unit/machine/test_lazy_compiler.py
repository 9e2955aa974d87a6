"""Operators of our own are told to the compiler only where something else has imported it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from groundup.machine.lazy_compiler import spare_the_compiler


def test_an_operator_does_not_import_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    @torch.library.custom_op("groundup_tests::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    spare_the_compiler(twice)
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    assert twice(torch.ones(2)).tolist() == [2, 2]
    assert "torch._dynamo" not in sys.modules
    told: list[Any] = []

    def disable(function: Any, *_: Any, **__: Any) -> Any:
        told.append(function)
        return lambda x: x * 3

    monkeypatch.setitem(sys.modules, "torch._dynamo", SimpleNamespace(disable=disable))  # type: ignore[arg-type]
    assert [twice(torch.ones(1)).item() for _ in range(2)] == [3, 3]
    assert len(told) == 1


def test_what_is_kept_elsewhere_is_left_alone() -> None:
    elsewhere = SimpleNamespace(fns={None: len})
    plain = SimpleNamespace(_backend_fns={None: len})
    for operator in (elsewhere, plain):
        spare_the_compiler(operator)
    assert vars(elsewhere) == {"fns": {None: len}}
    assert vars(plain) == {"_backend_fns": {None: len}}
