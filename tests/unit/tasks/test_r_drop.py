"""Two passes with different dropout that are to predict the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from resuming import stopped_and_resumed
from tiny_runs import tiny_run

import groundup
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.models.encoder_decoder import EncoderDecoderConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.text_to_text.r_drop import symmetric_divergence
from groundup.tasks.text_to_text.task import TextToText

EXAMPLES = [
    Example("a", "One two three", "Three", predicts_text=True),
    Example("b", "Four", "4, a number", predicts_text=True),
]


def test_the_divergence_is_the_mean_of_both_directions() -> None:
    torch.manual_seed(0)
    one = torch.randn(5, 9, dtype=torch.float64)
    other = torch.randn(5, 9, dtype=torch.float64)
    p, q = one.log_softmax(-1), other.log_softmax(-1)
    wanted = F.kl_div(p, q, reduction="sum", log_target=True)
    wanted = (wanted + F.kl_div(q, p, reduction="sum", log_target=True)) / 2
    torch.testing.assert_close(symmetric_divergence(one, other), wanted)
    # A token that may not be written has no share in either.
    one[0, 0] = other[0, 0] = -torch.inf
    assert symmetric_divergence(one, other).isfinite()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_objective(dropout: float) -> None:
    processor: Any = BytesConfig().fit(lambda: iter(()))
    torch.manual_seed(0)
    config = EncoderDecoderConfig(width=16, heads=2, layers=1, init_std=0.3, dropout=dropout)
    model = config.complete_from(processor).build()
    settings = {"metrics": ["rouge_l"], "label_smoothing": 0.1}
    plain = validate(TextToText, settings, "recipe.task")
    task = validate(TextToText, {**settings, "r_drop": 2.0}, "recipe.task")
    batch = task.encode(EXAMPLES, processor)
    objective = task.build_objective(model, processor)
    loss = objective(task.forward(model, batch), batch)
    assert {name: term.count.item() for name, term in loss.terms.items()} == task.counts(batch)
    assert loss.terms["consistency"].weight == 2.0
    apart = loss.terms["consistency"].total.item()
    wanted = plain.loss(plain.forward(model, batch), batch).terms["target"].total
    if dropout:
        assert apart > 0.01
    else:
        assert apart == pytest.approx(0.0, abs=1e-4)
        torch.testing.assert_close(loss.terms["target"].total, wanted, rtol=1e-5, atol=1e-4)
    # Nothing is dropped in validation, and there is one pass.
    model.eval()
    found = objective(task.forward(model, batch), batch)
    wanted = plain.loss(plain.forward(model, batch), batch).terms["target"].total
    assert list(found.terms) == ["target"]
    torch.testing.assert_close(found.terms["target"].total, wanted, rtol=1e-5, atol=1e-4)
    assert task.distils == ""


@pytest.mark.slow
def test_runs_with_micro_batches_stop_and_go_on(tmp_path: Path) -> None:
    recipe = tiny_run("encoder_decoder", tmp_path)
    recipe["task"] |= {"r_drop": 1.0, "metrics": []}
    recipe["machine"] |= {"micro_batch_size": 8}
    recipe["training"] |= {"steps": 8}
    stopped_and_resumed(recipe, tmp_path / "runs", (3, 8))
    trainer = groundup.trainer(recipe | {"name": "whole"}, runs=tmp_path / "more")
    report = next(iter(trainer.steps()))
    trainer.close()
    assert report.losses["consistency"] > 0
