"""Exports compute what was trained; a damaged one is refused, the first layer that differs
named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import tiny_run

import groundup
from groundup.api import export
from groundup.core.errors import CheckpointError, GroundupError, MissingExtraError, RunError
from groundup.export import export_run, gguf, huggingface, onnx
from groundup.export.verify import Comparison, Limit, Model, Sample, check_tensors, layer_of
from groundup.models.rnn import RNNConfig
from groundup.runs.run import Run

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
    found = export_run.compare(
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


# ------------------------------------------------------------------------------------------ refused
def _spoil_folder(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] += 0.5
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _nothing_left(folder: Path) -> bool:
    return not (folder / "export").exists() or not list((folder / "export").iterdir())


@pytest.mark.slow
def test_a_folder_that_is_not_what_was_trained(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(recipe, tmp_path)
    write = huggingface.write_folder

    def spoiled(run: Run, folder: Path, *rest: Any) -> None:
        write(run, folder, *rest)
        _spoil_folder(folder)

    with monkeypatch.context() as patch:
        patch.setattr(huggingface, "write_folder", spoiled)
        with pytest.raises(
            CheckpointError, match=r"layer that differs is blocks\.1 \(tensor blocks\.1\.mlp\.up"
        ):
            export(run, "huggingface")
    assert _nothing_left(run)
    opened = huggingface.Transformers.__init__

    def otherwise(self: Any, folder: Path) -> None:
        opened(self, folder)
        with torch.no_grad():
            self.module.model.layers[1].mlp.up_proj.weight[0] += 1.0

    monkeypatch.setattr(huggingface.Transformers, "__init__", otherwise)
    with pytest.raises(
        CheckpointError,
        match=r"transformers .* differs from groundup's reload of the folder by .*blocks\.1",
    ):
        export(run, "huggingface")
    assert _nothing_left(run)
    monkeypatch.setattr(huggingface.Transformers, "__init__", opened)
    monkeypatch.setattr(huggingface.Transformers, "find_other_tokens", lambda *_: "caf\u00e9")
    with pytest.raises(
        CheckpointError, match=r"reads other tokens than the run's tokenizer in 'caf\u00e9'"
    ):
        export(run, "huggingface")


@pytest.mark.slow
def test_a_file_that_is_not_what_was_trained(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    run = train(recipe, tmp_path)
    write = gguf.write_file

    def spoiled(path: Path, config: Any, weights: dict[str, torch.Tensor], *rest: Any) -> None:
        name = "blocks.1.attention.query.weight"
        write(path, config, {**weights, name: weights[name].flip(0)}, *rest)

    monkeypatch.setattr(gguf, "write_file", spoiled)
    with pytest.raises(
        CheckpointError,
        match=r"first layer that differs is blocks\.1 \(tensor blocks\.1\.attention\.q",
    ):
        export(run, "gguf", dtype="q8_0")
    monkeypatch.setattr(gguf, "write_file", write)
    monkeypatch.setattr(gguf.LlamaCpp, "continuation", lambda self, sample: [1])
    with pytest.raises(
        CheckpointError,
        match=r"writes another text than groundup's reload of the file after . of 8 prompts",
    ):
        export(run, "gguf")
    assert _nothing_left(run)


@pytest.mark.slow
def test_a_graph_that_is_not_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_run("mlp", tmp_path, {"hidden": [12, 12]})
    run = groundup.train(recipe, runs=tmp_path).folder
    write = onnx.write_graph

    def spoiled(path: Path, model: torch.nn.Module, *rest: Any, **options: Any) -> None:
        last = [part for part in model.modules() if isinstance(part, torch.nn.Linear)][1]
        with torch.no_grad():
            last.weight.copy_(last.weight.flip(0))
            write(path, model, *rest, **options)
            last.weight.copy_(last.weight.flip(0))

    monkeypatch.setattr(onnx, "write_graph", spoiled)
    with pytest.raises(
        CheckpointError,
        match=r"onnxruntime .* differs from the trained model by .*layer that differs is \w+",
    ):
        export(run, "onnx")
    assert _nothing_left(run)


# ------------------------------------------------------------------------------------------- errors
@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return groundup.train(tiny_run("mlp", tmp_path), runs=tmp_path).folder


WRONG: list[tuple[dict[str, Any], type[GroundupError], str]] = [
    (
        {"to": "onx"},
        RunError,
        "'onx' is no format; did you mean 'onnx'? allowed: huggingface, gguf, onnx",
    ),
    ({"to": "onnx", "dtype": "q4_0"}, RunError, "'q4_0' is not written to onnx; allowed: fp32"),
    ({"to": "huggingface"}, CheckpointError, "no Hugging Face layout is known for it"),
    (
        {"to": "onnx", "out": "full"},
        RunError,
        "exists, and is no export; nothing there was touched",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "kind", "message"), WRONG)
def test_what_cannot_be_exported(
    tiny: Path, options: dict[str, Any], kind: type[GroundupError], message: str
) -> None:
    Path("full").mkdir()
    Path("full", "mine.txt").write_text("mine")
    with pytest.raises(kind) as raised:
        export(tiny, **options)
    assert message in str(raised.value)
    assert Path("full", "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("to", "library", "extra"),
    [
        ("huggingface", "transformers", "pretrained"),
        ("gguf", "xllamacpp", "gguf"),
        ("onnx", "onnx", "onnx"),
    ],
)
def test_without_the_other_library_nothing_is_exported(
    to: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"{library} is not installed|groundup\[{extra}\]"):
        export("nowhere", to)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    def problem(limit: Limit, other: torch.Tensor, **values: Any) -> str:
        found = Comparison("a", "b", limit, **values)
        found.add(torch.tensor([[1.0, 2.0, -2.0], [1.0, 1.0005, 0.0]]), other, normalised=False)
        return found.problem() or ""

    near = torch.tensor(
        [[1.0, 2.0, -2.0], [1.0005, 1.0, 0.0]]
    )  # another choice, where two are as good
    far = torch.tensor([[2.0, 1.0, -2.0], [1.0, 1.0005, 0.0]])
    assert problem(Limit(1e-3), near) == ""
    assert "allowed: 0.0001" in problem(Limit(1e-4), near)
    assert "by 1, 0.5 of the largest output 2" in problem(Limit(1e-4), far)
    assert "nats of KL divergence (allowed: 0.01)" in problem(Limit(nats=0.01), far)
    assert "in the likeliest output at 1 of 2 positions" in problem(Limit(), far)
    assert problem(Limit(choices=False), far) == ""
    assert "by inf" in problem(Limit(1e-4), far * float("nan"))
    assert "after 1 of 1 prompts" in problem(Limit(), near, same_continuations=0)
    with pytest.raises(CheckpointError, match="gives outputs of shape"):
        problem(Limit(), far[:, :2])


def test_tensors_are_held_to_the_last_bit() -> None:
    weights = {"embed.weight": torch.zeros(2), "blocks.1.mlp.up.weight": torch.ones(2)}
    check_tensors("x", weights, weights)
    with pytest.raises(
        CheckpointError,
        match=r"tensor blocks\.1\.mlp\.up.* \(layer blocks\.1\) .* is not read back, but no tensor",
    ):
        check_tensors("x", weights, {"embed.weight": torch.zeros(2)})
    with pytest.raises(
        CheckpointError, match=r"embed\.weight .* of shape \[2\] is not read back, but \[2, 1\]"
    ):
        check_tensors("x", weights, {**weights, "embed.weight": torch.zeros(2, 1)})
    with pytest.raises(
        CheckpointError, match=r"differs is embed \(tensor embed\.weight, by up to 0\.5"
    ):
        check_tensors("x", weights, {**weights, "embed.weight": torch.full((2,), 0.5)})
    assert layer_of("norm.weight") == "norm"


def test_padding_is_never_written() -> None:
    class Padded(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[[1.0, 2.0, 9.0]]])

    sample = Sample({"tokens": torch.tensor([[0]])}, 1)
    plain: Callable[..., Any] = lambda tokens: torch.tensor([[[1.0, 2.0]]])  # noqa: E731
    one = Model("one", torch.nn.Module())
    one.module.forward = plain  # type: ignore[method-assign, assignment]
    with pytest.raises(CheckpointError, match="would write tokens from 2 on"):
        export_run.compare(one, Model("other", Padded()), [sample], Limit())


# ------------------------------------------------------------------------------------------------ a
# real model
SMOLLM2 = Path(os.environ.get("GROUNDUP_SMOLLM2") or "none")


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2.is_file(), reason="$GROUNDUP_SMOLLM2 names no file")
@pytest.mark.parametrize("to", ["huggingface", "gguf", "onnx"])
def test_a_real_model_writes_the_same_64_tokens_after_ten_prompts(
    recipe: dict[str, Any], tmp_path: Path, to: str
) -> None:
    if to == "gguf":
        pytest.importorskip("xllamacpp")
    parts = {key: recipe[key] for key in ("name", "task", "data", "machine")}
    model = {"context_length": 128}
    start = {
        "init": {"pretrained": str(SMOLLM2)},
        "adapter": {"name": "lora", "rank": 4},
        "model": model,
    }
    run = groundup.train(
        {**parts, **start, "training": {"batch_size": 1, "steps": 1}, "optim": {"lr": 1e-3}}
    )
    found = recorded(export(run.folder, to, prompts=10, new_tokens=64))["comparisons"]
    assert all(each["greedy_agreement"] == 1.0 for each in found)
    assert found[-1]["relative_difference"] < 1e-4
    assert to != "gguf" or found[-1]["same_continuations"] == 10
