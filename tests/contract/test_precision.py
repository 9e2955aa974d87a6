"""Every registered model trains and is judged in double precision as in single precision."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_run, without_chance

from groundup import api
from groundup.core.registry import names

QUICK = ("mlp", "gpt")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in names("model")
    ],
)
def test_double_precision_agrees_with_single(name: str, tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {}
    for precision in ("fp32", "fp64"):
        recipe = without_chance(tiny_run(name, tmp_path))
        recipe["machine"] = {**recipe["machine"], "precision": precision}
        trainer = api.trainer(recipe, {"name": precision}, runs=tmp_path / "runs")
        reports = list(islice(trainer.steps(), 2))
        losses[precision] = [*(report.loss for report in reports), trainer.evaluate(2)["loss"]]
        weight = next(trainer.model.parameters())
        assert weight.dtype == (torch.float64 if precision == "fp64" else torch.float32)
        trainer.close()
    assert losses["fp64"] == pytest.approx(
        losses["fp32"], rel=2e-3
    )  # Adam makes much of tiny gradients
