"""Schedules are pure functions of the step."""

from __future__ import annotations

import math

import pytest

from groundup.recipe.recipe import Optim
from groundup.recipe.sections import Training
from groundup.runs.run import count_steps
from groundup.training.schedules import learning_rate_at


def test_warm_up_rises_to_the_peak() -> None:
    optim = Optim(lr=1.0, warmup_steps=4, schedule="constant")
    assert [learning_rate_at(optim, step, 10) for step in range(6)] == [
        0.25,
        0.5,
        0.75,
        1.0,
        1.0,
        1.0,
    ]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_the_last_update_gets_the_final_rate(schedule: str) -> None:
    optim = Optim(lr=2.0, warmup_steps=3, schedule=schedule, final_lr_fraction=0.1)  # type: ignore[arg-type]
    rates = [learning_rate_at(optim, step, 50) for step in range(50)]
    assert rates[-1] == pytest.approx(0.2)
    assert max(rates) == 2.0
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_cosine_and_linear_meet_half_way() -> None:
    for schedule in ("linear", "cosine"):
        optim = Optim(lr=1.0, schedule=schedule, final_lr_fraction=0.0)  # type: ignore[arg-type]
        assert learning_rate_at(optim, 50, 101) == pytest.approx(0.5)
    cosine = Optim(lr=1.0, schedule="cosine", final_lr_fraction=0.0)
    assert learning_rate_at(cosine, 25, 101) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_wsd_is_flat_then_falls() -> None:
    optim = Optim(lr=1.0, schedule="wsd", decay_fraction=0.2, final_lr_fraction=0.0)
    rates = [learning_rate_at(optim, step, 100) for step in range(100)]
    assert set(rates[:81]) == {1.0}
    assert rates[90] == pytest.approx(9 / 19)


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        ({"steps": 7}, 7),
        ({"samples": 65}, 3),
        ({"samples": 64}, 2),
        ({"epochs": 2}, 7),
        ({"samples": 1}, 1),
    ],
)
def test_steps_of_a_run(length: dict[str, int], steps: int) -> None:
    assert count_steps(Training(batch_size=32, **length), samples_per_epoch=100) == steps


def test_rates_step_by_step() -> None:
    optim = Optim(lr=1.0, warmup_steps=1, schedule="linear", final_lr_fraction=0.5)
    assert [learning_rate_at(optim, step, 6) for step in range(8)] == pytest.approx(
        [1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5]
    )
    # A decay longer than what the warm-up leaves begins where that ends.
    optim = Optim(lr=1.0, warmup_steps=3, schedule="wsd", decay_fraction=1.0, final_lr_fraction=0.0)
    assert [learning_rate_at(optim, step, 6) for step in range(6)] == pytest.approx(
        [1 / 3, 2 / 3, 1.0, 1.0, 0.5, 0.0]
    )
    # The warm-up alone, and one update alone.
    assert learning_rate_at(Optim(lr=2.0, schedule="cosine"), 0, 1) == 2.0
