"""An export that is not what was trained is refused, and what cannot be exported says so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_export import recorded, train
from tiny_runs import tiny_run

import groundup
from groundup.api import export
from groundup.core.errors import CheckpointError, GroundupError, MissingExtraError, RunError
from groundup.export import gguf, huggingface, onnx_graph
from groundup.export.verify import (
    Comparison,
    Limit,
    Model,
    Sample,
    check_tensors,
    compare,
    layer_of,
)
from groundup.runs.run import Run

pytestmark = pytest.mark.xdist_group("transformers")  # imported once, by one worker


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
    write = onnx_graph.write_graph

    def spoiled(path: Path, model: torch.nn.Module, *rest: Any, **options: Any) -> None:
        last = [part for part in model.modules() if isinstance(part, torch.nn.Linear)][1]
        with torch.no_grad():
            last.weight.copy_(last.weight.flip(0))
            write(path, model, *rest, **options)
            last.weight.copy_(last.weight.flip(0))

    monkeypatch.setattr(onnx_graph, "write_graph", spoiled)
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
        "exists, but is no export; nothing there was touched",
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
        compare(one, Model("other", Padded()), [sample], Limit())


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
