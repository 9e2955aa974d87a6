"""Exports compute what was trained; a damaged one is refused, the first layer that differs
named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_run

import groundup
from groundup.api import export
from groundup.export import onnx
from groundup.export.verify import Limit, Model, Sample, compare
from groundup.models.rnn import RNNConfig

pytestmark = pytest.mark.xdist_group("transformers")  # imported once, by one worker


FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh", "bias": "all"},
    "qwen3": {"qk_norm": True, "kv_heads": 1, "vocabulary_multiple": 64},
}


def train(recipe: dict[str, Any], root: Path, family: str = "llama", *, adapter: str = "") -> Path:
    """Train a language model for a step, and with ``adapter`` another run that adapts it."""
    recipe["model"] |= {**FAMILIES[family], "width": 64, "dropout": 0.0}
    recipe |= {
        "processor": {"name": "bpe", "vocab_size": 300},
        "training": {"batch_size": 4, "steps": 1},
    }
    folder = groundup.train(recipe, runs=root).folder
    if not adapter:
        return folder
    parts = {key: recipe[key] for key in ("task", "data", "training", "machine")}
    start = {
        "name": "adapted",
        "init": {"run": str(folder)},
        "adapter": {"name": adapter, "rank": 2},
    }
    return groundup.train({**parts, **start, "optim": {"lr": 0.1}}, runs=root).folder


def recorded(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "export.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "adapter", "dtype"),
    [("qwen3", "dora", "fp32"), *((family, "", "bf16") for family in FAMILIES)],
)
def test_a_folder_for_transformers(
    recipe: dict[str, Any], tmp_path: Path, family: str, adapter: str, dtype: str
) -> None:
    folder = export(train(recipe, tmp_path, family, adapter=adapter), "huggingface", dtype=dtype)
    found = recorded(folder)
    names = [(each["reference"], each["other"].split()[0]) for each in found["comparisons"]]
    merged = "the merged model" if adapter else "the trained model"
    first = [("the trained model", "the")] if adapter else []
    assert names == [
        *first,
        (merged, "groundup's"),
        ("groundup's reload of the folder", "transformers"),
    ]
    exact = [
        each for each in found["comparisons"] if dtype == "fp32" or "transformers" in each["other"]
    ]
    assert all(
        each["relative_difference"] < 1e-5 and each["greedy_agreement"] == 1.0 for each in exact
    )
    assert found["samples_from"].startswith("validation data")
    assert found["adapter_merged"] is bool(adapter)
    assert "## Limits" in (folder / "README.md").read_text()
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]
    if adapter:
        assert found["comparisons"][0]["max_difference"] > 0
        assert (
            export(folder.parent.parent, "huggingface") == folder
        )  # in place of the one that is there


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16", "q8_0", "q4_0"])
def test_a_file_for_llama_cpp(recipe: dict[str, Any], tmp_path: Path, dtype: str) -> None:
    pytest.importorskip("xllamacpp")
    found = recorded(export(train(recipe, tmp_path, adapter="lora"), "gguf", dtype=dtype))[
        "comparisons"
    ]
    assert [each["other"].split()[0] for each in found] == ["the", "groundup's", "llama.cpp"]
    assert found[2]["kl_nats"] < 1e-4
    assert found[2]["same_continuations"] == 8 or dtype not in ("fp32", "fp16")
    assert found[2]["max_difference"] < {"fp32": 1e-4, "fp16": 0.01}.get(dtype, 0.1)


LONG = {
    "original_context": 256,
    "short_factors": [1.0, 1.1, 1.2],
    "long_factors": [4.0, 5.0, 6.0],
    "amplitude": 1.2,
}


OTHERS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "head_dim": 16,
        "sliding_window": 8,
        "global_every": 2,
        "logit_cap": 20.0,
        "layers": 3,
    },
    "phi3": {"rotary_share": 0.4, "long_rope": LONG, "sliding_window": 512},
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "q8_0"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_architecture(
    recipe: dict[str, Any], tmp_path: Path, name: str, dtype: str
) -> None:
    pytest.importorskip("xllamacpp")
    shape = {
        "name": name,
        "context_length": 256,
        "width": 32,
        "heads": 2,
        "kv_heads": 1,
        "mlp_width": 64,
    }
    model = {**shape, "layers": 2, **OTHERS[name], "init_std": 0.1}
    recipe |= {"model": model, "processor": {"name": "bpe", "vocab_size": 300}}
    recipe |= {"training": {"batch_size": 4, "steps": 1}}
    found = recorded(export(groundup.train(recipe, runs=tmp_path).folder, "gguf", dtype=dtype))[
        "comparisons"
    ]
    assert [each["other"].split()[0] for each in found] == ["groundup's", "llama.cpp"]
    assert found[1]["kl_nats"] < 1e-3
    if dtype == "fp32":
        assert found[1]["same_continuations"] == 8
        assert found[1]["relative_difference"] < {"gemma3": 2e-3, "phi3": 1e-5}[name]


@pytest.mark.slow
def test_a_graph_of_a_classifier(tmp_path: Path) -> None:
    run = groundup.train(tiny_run("mlp", tmp_path), runs=tmp_path)
    folder = export(run.folder, "onnx", out=tmp_path / "graph")
    (found,) = recorded(folder)["comparisons"]
    assert found["relative_difference"] < 1e-5
    assert {"model.onnx", "processor.json", "README.md", "export.json"} <= {
        path.name for path in folder.iterdir()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reads"),
    [
        *(
            (name, "")
            for name in (
                "cnn",
                "resnet",
                "convnext",
                "vit",
                "transformer_classifier",
                "bag_of_ngrams",
            )
        ),
        *(("gpt", ""), ("rnn", ""), ("rnn", "texts")),
    ],
)
def test_a_graph_of_every_model(tmp_path: Path, name: str, reads: str) -> None:
    """Of one row and of several; of texts and of frames of several lengths."""
    folder = export(
        groundup.train(tiny_run(name, tmp_path, reads=reads), runs=tmp_path).folder, "onnx"
    )
    (found,) = recorded(folder)["comparisons"]
    assert found["relative_difference"] < 1e-5
    assert found["samples"] >= 2


FRAMES, TOKENS = {"frame_width": 3}, {"vocabulary_size": 20, "embedding_width": 4}


RECURRENT: list[dict[str, Any]] = [
    {"cell": "rnn", "pooling": "last", **TOKENS},
    {"cell": "rnn", "bidirectional": True, "pooling": "attention", "layers": 2, **FRAMES},
    {"cell": "rnn", "activation": "relu", "bidirectional": True, "pooling": "last", **FRAMES},
    {"cell": "rnn", "activation": "relu", "pooling": "mean", "layers": 3, **TOKENS},
    {"cell": "gru", "pooling": "last", "layers": 2, **FRAMES},
    {"cell": "gru", "bidirectional": True, "pooling": "last", "layers": 3, **TOKENS},
    {"cell": "gru", "pooling": "attention", **TOKENS},
    {"cell": "lstm", "pooling": "last", **FRAMES},
    {"cell": "lstm", "bidirectional": True, "pooling": "mean", **TOKENS},
    {"cell": "lstm", "bidirectional": True, "pooling": "last", "layers": 3, **FRAMES},
]


def _rows(config: RNNConfig, *lengths: int) -> Sample:
    """Return rows of these lengths, what stands in the padding at random."""
    size = (len(lengths), max(lengths))
    rows = torch.randint(20, size) if config.vocabulary_size else torch.randn(*size, 3)
    return Sample(
        {"tokens" if config.vocabulary_size else "inputs": rows, "lengths": torch.tensor(lengths)}
    )


@pytest.mark.slow
@pytest.mark.parametrize("settings", RECURRENT)
def test_a_graph_of_recurrent_layers(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Of other numbers of rows and other lengths than it was made with; biases too are at
    random."""
    torch.manual_seed(0)
    config = RNNConfig(width=6, outputs=3, **settings)
    model = config.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    samples = [
        _rows(config, *lengths) for lengths in ([9, 3, 1, 7], [4, 12], [1], [5], [2, 1, 2, 1, 1])
    ]
    onnx.write_graph(tmp_path / "model.onnx", model, samples[0], sequences=True)
    found = compare(
        Model("ours", model), onnx.OnnxRuntime(tmp_path / "model.onnx", model), samples, Limit(1e-5)
    )
    assert found.problem() is None
    alone = samples[0].inputs | {"lengths": torch.full((4,), 9)}
    onnx.write_graph(
        tmp_path / "all.onnx",
        model,
        Sample({k: v for k, v in alone.items() if k != "lengths"}),
        sequences=True,
    )
    reader = onnx.OnnxRuntime(tmp_path / "all.onnx", model)
    torch.testing.assert_close(
        reader.outputs(Sample(alone), []),
        Model("ours", model).outputs(Sample(alone), []),
        rtol=1e-5,
        atol=1e-6,
    )
