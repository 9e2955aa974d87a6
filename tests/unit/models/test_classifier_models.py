"""Classifiers of pictures and sequences in runs of their own, and started from a language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import groundup
from groundup import api
from groundup.core.errors import CheckpointError
from groundup.data.sources.arrays import Arrays
from groundup.models.convnext import ConvNeXtConfig
from groundup.models.gpt import GPTConfig
from groundup.models.resnet import ResNetConfig
from groundup.models.rnn import RNNConfig
from groundup.models.transformer_classifier import TransformerClassifierConfig
from groundup.runs.checkpoint import Checkpoint
from groundup.runs.run import Run

MACHINE = {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1}
SMALL: dict[str, Any] = {"input_shape": (3, 8, 8), "outputs": 5}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums that are even or odd, written out."""
    path = tmp_path_factory.mktemp("texts") / "texts.npz"
    pairs = [(a, b) for a in range(20) for b in range(20)]
    np.savez(
        path,
        x=np.array([f"{a} and {b}" + "!" * (a % 4) for a, b in pairs]),
        y=np.array([a % 2 for a, _ in pairs]),
    )
    return path


def last(run: Run) -> Checkpoint:
    return run.checkpoints.load(run.checkpoints.steps()[-1])


def classify(model: dict[str, Any], data: Any, **sections: Any) -> dict[str, Any]:
    return {
        **{
            "name": "classifier",
            "model": model,
            "task": {"name": "classify", "max_tokens": 32},
            "data": data,
        },
        **{"optim": {"lr": 1e-2}, "training": {"batch_size": 32, "steps": 60}, "machine": MACHINE},
        **{"evaluation": {"every": 30}, "checkpoints": {"every": 30}, **sections},
    }


def accuracy(run: Run) -> float:
    return float(groundup.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]["accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"name": "vit", "patch": 2, "layers": 2, "width": 32, "heads": 2},
        {"name": "resnet", "layers": [1, 1], "width": 8, "stem": "small"},
        {"name": "convnext", "layers": [1, 1], "widths": [16, 32], "patch": 2, "layer_scale": 0.1},
    ],
    ids=lambda model: str(model["name"]),
)
def test_pictures_from_recipe_to_prediction(model: dict[str, Any], tmp_path: Path) -> None:
    processor = {"name": "image", "normalise": "standard"}
    training = {"batch_size": 32, "steps": 150 if model["name"] == "vit" else 60}
    run = groundup.train(
        classify(model, "arrays", processor=processor, training=training), runs=tmp_path
    )
    assert accuracy(run) > 0.6
    inputs = Arrays().examples("validation", tmp_path)[0].inputs
    assert groundup.predict(run.folder, inputs) in set("0123456789")


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"name": "rnn", "width": 24, "embedding_width": 16, "cell": "gru", "bidirectional": True},
        {
            "name": "transformer_classifier",
            "layers": 2,
            "width": 32,
            "heads": 2,
            "pooling": "class",
        },
    ],
    ids=lambda model: str(model["name"]),
)
def test_texts_from_recipe_to_prediction(
    model: dict[str, Any], texts: Path, tmp_path: Path
) -> None:
    data = {"name": "arrays", "path": str(texts), "fraction": 0.2}
    run = groundup.train(classify(model, data, processor="bytes"), runs=tmp_path)
    assert accuracy(run) > 0.8
    assert groundup.predict(run.folder, ["7 and 12!!!", "18 and 3"]) in (
        ["1", "0"],
        ["1", "1"],
        ["0", "0"],
    )
    assert all(json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"positions": "learned", "norm": "layernorm", "vocabulary_multiple": 64}]
)
def test_a_classifier_starts_from_a_language_model(
    recipe: dict[str, Any], texts: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    recipe["model"] |= {"dropout": 0.0, **settings}
    base = groundup.train(recipe, runs=tmp_path)
    shape = {**recipe["model"], "name": "transformer_classifier", "causal": True, "pooling": "last"}
    data = {"name": "arrays", "path": str(texts)}
    plan = classify(shape, data, init={"run": str(base.folder)})
    trainer = api.trainer(plan, runs=tmp_path)
    own, weights = trainer.model.state_dict(), last(base).model
    assert set(own) == {*weights, "head.weight", "head.bias"}
    assert all(torch.equal(own[name], value) for name, value in weights.items())
    gpt = api.trainer(recipe, {"name": "again"}, runs=tmp_path).model.eval()
    gpt.load_state_dict(weights)
    tokens = torch.randint(256, (2, 20))
    with torch.no_grad():
        found = trainer.model.eval().features(tokens=tokens, lengths=torch.tensor([20, 7]))  # type: ignore[operator]
        hidden = gpt.hidden(tokens)  # type: ignore[operator]
    torch.testing.assert_close(found, torch.stack((hidden[0, 19], hidden[1, 6])), rtol=0, atol=1e-6)
    trainer.close()
    run = groundup.train(
        plan, {"init.train_layers": 1, "name": "tuned", "training.steps": 2}, runs=tmp_path
    )
    trained = last(run).model
    moved = {name.split(".")[0] for name in trained if not torch.equal(trained[name], own[name])}
    assert moved <= {"blocks", "norm", "head"}
    assert not any(
        name.startswith("blocks.0") and not torch.equal(trained[name], own[name])
        for name in trained
    )
    with pytest.raises(CheckpointError, match=r"lacks tensor pool.hidden.weight"):
        api.trainer(plan, {"name": "more", "model.pooling": "attention"}, runs=tmp_path)


def test_the_blocks_are_those_of_a_gpt() -> None:
    settings: dict[str, Any] = {
        "vocabulary_size": 11,
        "width": 16,
        "heads": 4,
        "layers": 1,
        "kv_heads": 2,
    }
    settings |= {"qk_norm": True, "bias": "qkv", "context_length": 8}
    gpt = GPTConfig(**settings).build().state_dict()
    own = TransformerClassifierConfig(**settings, outputs=2).build().state_dict()
    assert {name: value.shape for name, value in own.items() if not name.startswith("head.")} == {
        name: value.shape for name, value in gpt.items()
    }
    assert set(GPTConfig.model_fields) - set(TransformerClassifierConfig.model_fields) == {
        "tied_embeddings"
    }


def test_stretched_wavelengths_are_those_of_a_gpt() -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocabulary_size": 11,
        "width": 16,
        "heads": 4,
        "layers": 1,
        "context_length": 8,
    }
    settings |= {"rope_scaling": {"kind": "linear", "factor": 4.0}}
    gpt, tokens = GPTConfig(**settings).build().eval(), torch.arange(8)[None]
    made = (
        TransformerClassifierConfig(**settings, outputs=2, causal=True, pooling="last")
        .build()
        .eval()
    )
    made.load_state_dict(gpt.state_dict(), strict=False)
    with torch.no_grad():
        found = made.features(tokens=tokens, lengths=torch.tensor([8]))
        torch.testing.assert_close(found, gpt.hidden(tokens)[:, -1], rtol=0, atol=1e-6)
        made.config = made.config.model_copy(update={"rope_scaling": None})
        assert (made.features(tokens=tokens, lengths=torch.tensor([8])) - found).abs().max() > 1e-4


def test_a_block_that_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    model = (
        ResNetConfig(layers=(2, 2), width=4, stem="small", zero_init=True, **SMALL).build().eval()
    )
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(model.blocks[1](x), x)
    plain = ResNetConfig(layers=(2, 2), width=4, stem="small", **SMALL).build().eval()
    assert not torch.allclose(plain.blocks[1](x), x)
    assert not ResNetConfig().loss_is_sum


def test_frozen_batch_norms_keep_their_statistics() -> None:
    model = ResNetConfig(layers=(1, 1), width=4, stem="small", **SMALL).build()
    for parameter in (*model.embed.parameters(), *model.blocks[0].parameters()):
        parameter.requires_grad_(False)
    before = {
        name: value.clone()
        for name, value in model.named_buffers()
        if name.endswith("running_mean")
    }
    model.train()(torch.randn(4, 3, 8, 8))
    after = dict(model.named_buffers())
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {name for name in before if name.startswith("blocks.1.")}


def test_stochastic_depth_leaves_whole_blocks_out_more_often_at_the_end() -> None:
    torch.manual_seed(0)
    config = ConvNeXtConfig(
        layers=(3,), widths=(4,), patch=1, stochastic_depth=0.6, layer_scale=1.0, **SMALL
    )
    model = config.build()
    assert [block.dropped for block in model.blocks] == pytest.approx([0.0, 0.3, 0.6])
    x, last_block = torch.randn(1, 4, 8, 8).expand(4000, 4, 8, 8), model.blocks[2]
    with torch.no_grad():
        change = last_block(x) - x
        whole = last_block.eval()(x[:1]) - x[:1]
    left_out = change.abs().amax((1, 2, 3)) == 0
    assert float(left_out.float().mean()) == pytest.approx(0.6, abs=0.03)
    torch.testing.assert_close(change[~left_out][:1], whole / 0.4, rtol=1e-4, atol=1e-5)


def test_recurrent_layers_are_blocks_of_their_own() -> None:
    config = RNNConfig(layers=3, width=4, frame_width=2, outputs=2, bidirectional=True)
    model = config.build()
    assert len(model.blocks) == 3
    assert [block.input_size for block in model.blocks] == [2, 8, 8]
    assert model.head.in_features == 8
