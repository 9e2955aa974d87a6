"""Messages about the precision of the weights that a model predicts with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest
from torch import nn

from groundup.core.errors import RunError
from groundup.inference.precision import quick, set_weights
from groundup.inference.predictor import Predictor
from groundup.models.gpt import GPTConfig


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (
            "int9",
            (
                "weights: 'int9' is no precision of weights; did you mean 'int8'? allowed: fp32,"
                " bf16, int8, int4."
            ),
        ),
        (
            "int8",
            (
                "runs/x: weights int8 are for the models gpt, encoder_decoder and whisper, but this"
                " one is a Linear. Use weights fp32"
            ),
        ),
    ],
)
def test_weights_to_predict_with(weights: str, expected: str) -> None:
    with pytest.raises(RunError, match=re.escape(expected)):
        set_weights(nn.Linear(2, 2), weights, "runs/x")


def test_int4_fits_no_matrix(caplog: pytest.LogCaptureFixture) -> None:
    sizes: dict[str, Any] = {"vocabulary_size": 40, "width": 24, "heads": 2, "layers": 1}
    config = GPTConfig(**sizes, context_length=24, mlp_width=72)
    expected = (
        "runs/x: weights int4 keep 32 inputs of a matrix in a group, but none of the 7 matrices of"
        " this model has inputs in groups of 32 and outputs in groups of 16. Use weights int8."
    )
    with pytest.raises(RunError, match=re.escape(expected)):
        set_weights(config.build(), "int4", "runs/x")
    model = config.build()
    set_weights(model, "int8", "runs/x")
    assert quick(model) is not model


def test_an_adapter_comes_before_few_bits() -> None:
    class FakeRun:
        folder = Path("runs/x")

    predictor = Predictor(cast(Any, FakeRun()), nn.Linear(2, 2), None, cast(Any, None), 3, "int8")
    with pytest.raises(
        RunError,
        match=r"runs/x: its weights are in int8 by now, which an adapter cannot be put into",
    ):
        predictor.use(None)
