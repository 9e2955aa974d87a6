"""What 'auto' becomes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from groundup.machine import devices
from groundup.recipe.sections import Machine


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _threads(sample_flops: float, batch_size: int = 32, **given: int) -> int | str:
    machine = Machine(device="cpu", precision="fp32", compile=False, **given)  # type: ignore[arg-type]
    return devices.resolve(machine, batch_size, sample_flops, 1000).threads


def test_a_tiny_step_gets_one_thread_and_others_all_cores() -> None:
    dense_64, dense_1024 = 6.0 * 54_912, 6.0 * 1_861_632
    cores = len(os.sched_getaffinity(0))
    assert _threads(dense_64) == 1
    assert _threads(dense_1024) == cores
    assert _threads(dense_64, batch_size=1024) == cores
    assert _threads(dense_64, batch_size=1024, micro_batch_size=32) == 1


def test_unknown_work_gets_all_cores_and_a_given_number_stays() -> None:
    assert _threads(0.0) == len(os.sched_getaffinity(0))
    assert _threads(6.0 * 54_912, threads=3) == 3


@pytest.mark.parametrize(("product_s", "size"), [(1e-4, 1024), (0.01, 256)])
def test_slow_products_are_measured_on_small_matrices(
    monkeypatch: pytest.MonkeyPatch, product_s: float, size: int
) -> None:
    multiplied = list[int]()
    plain = torch.mm

    def mm(one: torch.Tensor, other: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        multiplied.append(len(one))
        return plain(one, other, **named)

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(devices, "_time_product", lambda *given: product_s)
    # A time that nobody else asks for: rates are kept for the whole process.
    assert devices.matmul_flops_per_s("cpu", "fp32", 0.1 + product_s / 1e6) > 0
    assert set(multiplied) == {size}
