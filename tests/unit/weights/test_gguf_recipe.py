"""A recipe that starts from a GGUF file: its model, tokenizer and weights, their checksum, and what
is wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from ggufs import write_small

import groundup
from groundup.core.errors import CheckpointError, DataError, GroundupError, RecipeError
from groundup.inference.predictor import Predictor
from groundup.models.mlp import MLPConfig
from groundup.recipe.recipe import load_recipe
from groundup.weights.gguf import read_gguf


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_small(tmp_path / "small.gguf", "qwen2", "Q8_0")
    return tmp_path / "small.gguf"


@pytest.fixture
def tuning(recipe: dict[str, Any], file: Path) -> dict[str, Any]:
    parts = {
        key: recipe[key]
        for key in ("name", "task", "data", "logging", "evaluation", "checkpoints", "machine")
    }
    model = {"context_length": 32}
    return parts | {
        "model": model,
        "init": {"pretrained": str(file)},
        "training": {"batch_size": 4, "steps": 1},
    }


@pytest.mark.slow
def test_a_run_starts_from_its_weights_and_needs_the_file_no_more(
    tuning: dict[str, Any], file: Path, tmp_path: Path
) -> None:
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    _, weights, processor = read_gguf(file)
    run = groundup.train(tuning | {"optim": {"name": "sgd", "lr": 1e-9}}, runs=tmp_path)
    facts = run.read_json("environment.json")
    assert facts["base_weights_sha256"] == sha256
    assert facts["pretrained"]["files"] == {"small.gguf": sha256}
    file.unlink()
    predictor = Predictor.load(run.folder)
    trained = predictor.model.state_dict()
    assert trained.keys() == weights.keys()
    assert all(torch.allclose(trained[name], weights[name], atol=1e-6) for name in weights)
    assert predictor.model.config.context_length == 32
    assert predictor.processor.described() == processor.described()
    assert isinstance(groundup.predict(run.folder, "The ", max_new_tokens=2), str)


@pytest.mark.slow
def test_an_adapter_is_trained_beside_it(
    tuning: dict[str, Any], file: Path, tmp_path: Path
) -> None:
    run = groundup.train(tuning | {"adapter": {"name": "lora", "rank": 2}}, runs=tmp_path)
    assert (
        run.checkpoints.state(1)["base"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    )
    assert isinstance(groundup.predict(run.folder, "The ", max_new_tokens=2), str)
    write_small(file, "qwen2", "Q4_0")
    with pytest.raises(
        GroundupError, match=r"was fine-tuned from other weights than .*small.gguf holds now"
    ):
        groundup.train(tuning | {"adapter": {"name": "lora", "rank": 2}}, runs=tmp_path)


CASES: list[tuple[dict[str, Any], type[GroundupError], str]] = [
    (
        {"init": {"pretrained": "smal.gguf"}},
        RecipeError,
        "there is no file smal.gguf; did you mean 'small.gguf'? allowed: a GGUF file that exists",
    ),
    (
        {"init": {"pretrained": "small.gguf", "revision": "main"}},
        RecipeError,
        "small.gguf is a file, but only the hub",
    ),
    (
        {"init": {"pretrained": "small.gguf"}, "model": {"width": 8}},
        RecipeError,
        "the file says what the model is",
    ),
    (
        {"init": {"pretrained": "small.gguf"}, "model": {"context_length": 99}},
        RecipeError,
        "was trained for 64",
    ),
    (
        {"init": {"pretrained": "small.gguf"}, "model": "mlp"},
        RecipeError,
        "no GGUF layout is known for model 'mlp'",
    ),
    (
        {"init": {"pretrained": "cut.gguf"}},
        CheckpointError,
        "cut.gguf: says it has 26 metadata, but only 276",
    ),
    (
        {"init": {"pretrained": "bert.gguf"}},
        CheckpointError,
        "bert.gguf: general.architecture is 'bert '",
    ),
]


@pytest.mark.parametrize(("changes", "kind", "message"), CASES)
def test_what_is_wrong_is_said(
    tuning: dict[str, Any],
    file: Path,
    changes: dict[str, Any],
    kind: type[GroundupError],
    message: str,
) -> None:
    assert not hasattr(MLPConfig, "from_gguf")
    (file.parent / "cut.gguf").write_bytes(file.read_bytes()[:300])
    (file.parent / "bert.gguf").write_bytes(file.read_bytes().replace(b"qwen2", b"bert ", 1))
    with pytest.raises(kind) as raised:
        load_recipe({**tuning, **changes})
    assert message in str(raised.value)


def test_another_end_token_is_taken_or_refused(tuning: dict[str, Any], tmp_path: Path) -> None:
    tuning["processor"] = {"end_token": "<|nowhere|>"}
    with pytest.raises(DataError, match=r"no token '<\|nowhere\|>'; .*allowed: a token of its own"):
        groundup.train(tuning, runs=tmp_path)
