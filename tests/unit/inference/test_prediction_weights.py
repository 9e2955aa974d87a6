"""A run that predicts with other weights than it was trained in."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import tiny_run

import groundup
from groundup.generation.single_row_decoder import FastDecoder
from groundup.nn.lowbit.int8 import Int8Linear


@pytest.mark.slow
def test_a_run_predicts_with_every_kind_of_weights(tmp_path: Path) -> None:
    run = groundup.train(tiny_run("gpt", tmp_path), runs=tmp_path)
    texts = {}
    for weights in ("fp32", "bf16", "int8"):
        predictor = groundup.load(run.folder, weights=weights)
        assert isinstance(predictor._writer, FastDecoder)
        texts[weights] = predictor("def", temperature=0.0, max_new_tokens=8)
        assert "".join(predictor.stream("def", temperature=0.0, max_new_tokens=8)) == texts[weights]
        assert any(isinstance(module, Int8Linear) for module in predictor.model.modules()) == (
            weights == "int8"
        )
    assert texts["fp32"] == _own_text(run.folder)


def _own_text(folder: Path) -> str:
    """Return what the model's own forward writes."""
    predictor = groundup.load(folder)
    return str(
        predictor.task.predict(
            predictor.model, "def", predictor.processor, temperature=0.0, max_new_tokens=8
        )
    )
