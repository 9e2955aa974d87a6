"""A run that predicts with other weights than it was trained in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny_run
from typer.testing import CliRunner

import groundup
from groundup.cli.main import app
from groundup.generation.single_row_decoder import FastDecoder
from groundup.inference.precision import WEIGHTS, set_weights
from groundup.models.gpt import GPTConfig
from groundup.nn.lowbit.int4 import Int4Weight
from groundup.nn.lowbit.int8 import Int8Embedding, Int8Weight, PackedLinear


@pytest.mark.slow
def test_a_run_predicts_with_every_kind_of_weights(tmp_path: Path) -> None:
    run = groundup.train(tiny_run("gpt", tmp_path, {"width": 64}), runs=tmp_path)
    texts = {}
    for weights in WEIGHTS:
        predictor = groundup.load(run.folder, weights=weights)
        assert isinstance(predictor._writer, FastDecoder)
        texts[weights] = predictor("def", temperature=0.0, max_new_tokens=8)
        assert "".join(predictor.stream("def", temperature=0.0, max_new_tokens=8)) == texts[weights]
        assert any(isinstance(module, PackedLinear) for module in predictor.model.modules()) == (
            weights.startswith("int")
        )
        command = ["predict", str(run.folder), "def", "--weights", weights]
        shown = CliRunner().invoke(app, [*command, "--temperature", "0", "--max-new-tokens", "8"])
        assert shown.exit_code == 0
        assert texts[weights] in shown.output
    assert texts["fp32"] == _own_text(run.folder)


def _own_text(folder: Path) -> str:
    """Return what the model's own forward writes."""
    predictor = groundup.load(folder)
    return str(
        predictor.task.predict(
            predictor.model, "def", predictor.processor, temperature=0.0, max_new_tokens=8
        )
    )


def _model(**changes: Any) -> Any:
    sizes: dict[str, Any] = {"vocabulary_size": 40, "width": 64, "heads": 2, "layers": 2}
    return GPTConfig(**{**sizes, "context_length": 24, **changes}).build().eval()


def test_int4_leaves_in_int8_what_does_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    model = _model(mlp_width=72, tied_embeddings=False)
    with caplog.at_level("INFO", "groundup"):
        set_weights(model, "int4", "runs/x")
    assert (
        "6 of 14 matrices are kept in int8 instead of int4: their inputs are no multiple of 32, or"
        " their outputs none of 16" in caplog.text
    )
    assert "; the embedding and the output layer in int8, multiplied by" in caplog.text
    kinds = {
        name: type(layer.stored)
        for name, layer in model.named_modules()
        if isinstance(layer, PackedLinear)
    }
    narrow = {name.rpartition(".")[2] for name, kind in kinds.items() if kind is Int4Weight}
    assert narrow == {"query", "key", "value", "output"}
    assert kinds["head"] is Int8Weight
    assert isinstance(model.embed, Int8Embedding)


def test_int4_says_nothing_where_all_fits(caplog: pytest.LogCaptureFixture) -> None:
    model = _model(mlp_width=128)
    set_weights(model, "int4", "runs/x")
    assert "kept in int8" not in caplog.text
