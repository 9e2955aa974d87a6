"""Gemma 3 and Phi-3 in GGUF files: read back as written, and what such files cannot hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ggufs import tokenizer

from groundup.core.errors import CheckpointError
from groundup.core.registry import lookup
from groundup.core.settings import validate
from groundup.formats.gguf import open_gguf
from groundup.formats.gguf_writer import write_gguf
from groundup.formats.model_types import gguf_model_of
from groundup.recipe.recipe import load_recipe
from groundup.weights.gguf import read_gguf, rounded, save_gguf

SHAPE: dict[str, Any] = {
    "layers": 3,
    "width": 32,
    "heads": 2,
    "kv_heads": 1,
    "mlp_width": 48,
    "context_length": 300,
}
LONG = {
    "original_context": 256,
    "short_factors": [1, 1.1, 1.3],
    "long_factors": [4, 5.5, 6],
    "amplitude": 1.19,
}
GEMMA: dict[str, Any] = {**SHAPE, "head_dim": 8, "sliding_window": 4, "global_every": 2}
PHI: dict[str, Any] = {**SHAPE, "rotary_share": 0.375}
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("gemma3", {**GEMMA, "logit_cap": 3.0, "local_rope_theta": 300.0}),
    ("gemma3", {**GEMMA, "global_every": 4, "rope_scaling": {"kind": "linear", "factor": 4.0}}),
    ("gemma3", {**GEMMA, "global_every": 1, "sliding_window": 300}),
    ("phi3", {**PHI, "tied_embeddings": True, "sliding_window": 300}),
    ("phi3", {**PHI, "long_rope": LONG, "rope_theta": 500.0}),
]


def written(
    name: str, values: dict[str, Any], path: Path, kind: str = "F32"
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Write a model with random weights, norms too, and return its settings and weights."""
    cls: Any = lookup("model", name)
    config = validate(cls, {"vocabulary_size": 320, **values}, "recipe.model")
    torch.manual_seed(3)
    weights = {
        key: value + 0.1 * torch.randn_like(value)
        for key, value in config.build().state_dict().items()
    }
    save_gguf(path, config, weights, tokenizer(), kind)
    return config, weights


@pytest.mark.parametrize(("name", "values"), SETTINGS)
def test_a_model_reads_back_as_written(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    config, weights = written(name, values, tmp_path / "a.gguf")
    settings, back, _ = read_gguf(tmp_path / "a.gguf")
    assert gguf_model_of(open_gguf(tmp_path / "a.gguf")) == name
    assert validate(type(config), settings, "file").completed() == config.completed()
    assert back.keys() == weights.keys()
    assert all(
        (back[key] - weights[key]).abs().max() < 1e-6 for key in weights
    )  # 1 + a norm's weight is rounded
    assert all(
        torch.equal(value, back[key]) for key, value in rounded(config, weights, "F32").items()
    )


def test_a_run_takes_its_model_from_the_file(tmp_path: Path) -> None:
    written("gemma3", GEMMA, tmp_path / "a.gguf", "F16")
    recipe = {"name": "x", "task": "language_modeling", "data": {"name": "text", "path": "x"}}
    found = load_recipe(
        {**recipe, "init": {"pretrained": str(tmp_path / "a.gguf")}, "training": {"steps": 1}}
    )
    assert found.model.registered_name == "gemma3"
    assert found.model.global_every == 2  # type: ignore[attr-defined]


UNWRITABLE: list[tuple[str, dict[str, Any], str]] = [
    (
        "gemma3",
        {**GEMMA, "attention_scale": 4.0},
        r"attention_scale is 4, but llama\.cpp takes 8 for such a gemma3",
    ),
    (
        "gemma3",
        {**GEMMA, "rope_scaling": {"kind": "llama3", "factor": 4.0}},
        r"stretched by llama3 have no place in a gemma3 GGUF file: only linear",
    ),
    (
        "phi3",
        {**PHI, "sliding_window": 299},
        r"sliding_window is 299 and context_length 300, .*context_length: 299",
    ),
    (
        "phi3",
        {**PHI, "long_rope": {**LONG, "original_context": 255}},
        r"original_context is 255, but llama\.cpp, whose context decides .* opens none below 256",
    ),
]


@pytest.mark.parametrize(("name", "values", "message"), UNWRITABLE)
def test_what_llama_cpp_would_compute_otherwise_is_not_written(
    name: str, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        written(name, values, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_a_model_without_an_architecture_there(tmp_path: Path) -> None:
    cls: Any = lookup("model", "mlp")
    with pytest.raises(
        CheckpointError,
        match=r"mlp has no place in a GGUF file; allowed: gpt, gemma3, phi3\.",
    ):
        save_gguf(tmp_path / "a.gguf", cls(), {}, tokenizer())


UNREADABLE: list[tuple[str, dict[str, Any], list[str], str]] = [
    (
        "gemma3",
        {"gemma3.attention.head_count_kv": None},
        [],
        r"gemma3\.attention\.head_count_kv is missing",
    ),
    (
        "gemma3",
        {"gemma3.rope.scaling.type": "yarn"},
        [],
        r"gemma3\.rope\.scaling\.type is 'yarn', which is not built",
    ),
    (
        "gemma3",
        {"gemma3.rope.scaling.type": "linear"},
        [],
        r"gemma3\.rope\.scaling\.factor is missing",
    ),
    (
        "gemma3",
        {"gemma3.attention.sliding_window_pattern": [True, False, False]},
        [],
        r"sliding_window_pattern is \[True, False, False\]; allowed: a number, or for each layer",
    ),
    (
        "phi3",
        {"phi3.rope.dimension_count": 18},
        [],
        r"phi3\.rope\.dimension_count is 18, but heads have 16 channels",
    ),
    (
        "phi3",
        {},
        ["rope_factors_long.weight"],
        r"rope_factors_long\.weight is missing, but there are factors",
    ),
    (
        "phi3",
        {"phi3.rope.scaling.original_context_length": None},
        [],
        r"phi3\.rope\.scaling\.original_context_length is missing, but there are factors",
    ),
]


@pytest.mark.parametrize(("name", "change", "without", "message"), UNREADABLE)
def test_files_that_are_not_read(
    name: str, change: dict[str, Any], without: list[str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.gguf"
    written(name, GEMMA if name == "gemma3" else {**PHI, "long_rope": LONG}, path)
    file = open_gguf(path)
    tensors = {key: torch.from_numpy(file.read(key)) for key in file.tensors if key not in without}
    metadata = {key: value for key, value in (file.metadata | change).items() if value is not None}
    write_gguf(path, metadata, tensors, dict.fromkeys(tensors, "F32"))
    with pytest.raises(CheckpointError, match=message):
        read_gguf(path)


def test_other_ways_to_say_which_layers_are_local(tmp_path: Path) -> None:
    """A list over the layers, no pattern, and no window at all."""
    written("gemma3", GEMMA, tmp_path / "a.gguf")
    file = open_gguf(tmp_path / "a.gguf")
    tensors = {key: torch.from_numpy(np.array(file.read(key))) for key in file.tensors}
    key, found = "gemma3.attention.sliding_window", []
    for change in (
        {f"{key}_pattern": [True, False, True]},
        {f"{key}_pattern": None},
        {key: 0},
        {key: None},
    ):
        metadata = {
            name: value for name, value in {**file.metadata, **change}.items() if value is not None
        }
        write_gguf(tmp_path / "b.gguf", metadata, tensors, dict.fromkeys(tensors, "F32"))
        found.append(read_gguf(tmp_path / "b.gguf")[0]["global_every"])
    assert found == [2, 6, 1, 1]
