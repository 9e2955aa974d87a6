"""Every message about adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import groundup
from groundup.core.errors import CheckpointError, RecipeError, RunError
from groundup.core.settings import validate
from groundup.models.gpt import GPTConfig
from groundup.nn.lora.adapters import attach
from groundup.recipe.adapter import Adapter
from groundup.recipe.recipe import load_recipe
from groundup.weights.adapter_runs import FrozenWeightsRef, base_reference
from groundup.weights.quantized_base import quantize_layers
from groundup.weights.read_peft import read_adapter_folder

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def tuning(recipe: dict[str, Any], runs: Path, **adapter: Any) -> dict[str, Any]:
    kept = {key: value for key, value in recipe.items() if key not in ("model", "processor")}
    return {**kept, "name": "tuned", "init": {"run": str(runs / "small")}, "adapter": adapter}


def gpt() -> torch.nn.Module:
    return GPTConfig(vocabulary_size=11, layers=2, width=8, heads=2).build()


# --------------------------------------------------------------------------------------- the recipe
def test_an_adapter_without_a_base(recipe: dict[str, Any]) -> None:
    with pytest.raises(
        RecipeError, match=r"adapter has nothing to adapt\. Set init\.run or init\.pretrained"
    ):
        load_recipe(recipe | {"adapter": {}})


@pytest.mark.slow
@pytest.mark.parametrize("init", [{"train_layers": 1}, {"unfreeze_every": 2}])
def test_layers_chosen_twice(recipe: dict[str, Any], tmp_path: Path, init: dict[str, Any]) -> None:
    groundup.train({**recipe, "training": {"batch_size": 4, "steps": 1}}, runs=tmp_path)
    tuned = tuning(recipe, tmp_path)
    tuned["init"] |= init
    with pytest.raises(
        RecipeError, match=r"init.train_layers and init.unfreeze_every have no effect with adapter"
    ):
        load_recipe(tuned)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"rank": 0}, r"recipe.adapter.rank: got 0; allowed: greater than 0"),
        ({"rang": 4}, r"recipe.adapter.rang: unknown key; did you mean 'rank'\?"),
        ({"name": "ia3"}, r"recipe.adapter.name: got \"ia3\"; allowed: 'lora' or 'dora'"),
        (
            {"rank": 4, "targets": {"query": 2}},
            "rank has no effect where targets gives each its own. Remove rank",
        ),
        ({"base": "int4"}, r"recipe.adapter.base: got \"int4\"; allowed: 'fp32', 'int8' or 'nf4'"),
        (
            {"base": "int8", "double_quantization": False},
            (
                r'double_quantization has no effect with base: "int8"; it applies when base is'
                r' "nf4"\. Remove'
            ),
        ),
        ({"targets": []}, "recipe.adapter.targets"),
        ({"targets": {"query": 0}}, "recipe.adapter.targets"),
    ],
)
def test_settings_that_cannot_be(section: dict[str, Any], expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        validate(Adapter, section, "recipe.adapter")


def test_targets_that_are_not_there() -> None:
    known = r"this model's: blocks\.\*\.attention\.key, .*, blocks\.\*\.mlp\.up, embed\. Name some of them"
    with pytest.raises(
        RecipeError, match=rf"adapter.targets: no linear layer is called 'q_proj'; {known}"
    ):
        attach(gpt(), Adapter(rank=2, targets=("q_proj",)))
    with pytest.raises(
        RecipeError, match=r"called 'blocks.0.attention.query' that no pattern before it names"
    ):
        attach(gpt(), Adapter(rank=2, targets=("query", "blocks.0.attention.query")))
    with pytest.raises(
        RecipeError, match=r"no linear layer is called 'blocks.\*'; this model's: none"
    ):
        attach(torch.nn.Conv2d(1, 1, 1), Adapter())


def test_a_rank_larger_than_its_layer() -> None:
    with pytest.raises(
        RecipeError,
        match=(
            r"rank: is 9, but layer blocks.0.attention.query turns 8 numbers into 8; allowed there:"
            r" 1 to 8\. Lower"
        ),
    ):
        attach(gpt(), Adapter(rank=9))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        ({"bias": "all"}, r"adapter.bias: is all, but the model has no bias\. Remove it"),
        (
            {"modules_to_save": ["lm_head"]},
            r"modules_to_save: no part with weights in floats is called 'lm_head'; there are blocks,"
            r" embed, norm, and what is within them",
        ),
        ({"modules_to_save": ["head"]}, "the output layer is embed, the embedding"),
        ({"modules_to_save": ["query"], "base": "nf4"}, "no part with weights in floats is called"),
    ],
)
def test_parts_that_are_not_there(
    recipe: dict[str, Any], tmp_path: Path, adapter: dict[str, Any], expected: str
) -> None:
    groundup.train({**recipe, "training": {"batch_size": 4, "steps": 1}}, runs=tmp_path)
    with pytest.raises(RecipeError, match=expected):
        groundup.trainer(tuning(recipe, tmp_path, rank=2, **adapter), runs=tmp_path)


# ----------------------------------------------------------------------------------------- the base
def test_bases_that_cannot_be_quantized() -> None:
    settings = Adapter(base="nf4")
    with pytest.raises(
        RecipeError,
        match=r"adapter\.base: has no effect: Conv2d has no linear layer in blocks.*Remove",
    ):
        quantize_layers(torch.nn.Conv2d(1, 1, 1), settings, "base")
    model = gpt()
    model.get_parameter("blocks.1.mlp.up.weight").data[1, 2] = float("inf")
    expected = (
        r"base, tensor blocks\.1\.mlp\.up\.weight: holds numbers that are not finite, .*or set"
        r" adapter.base: fp32"
    )
    with pytest.raises(CheckpointError, match=expected):
        quantize_layers(model, settings, "base")


@pytest.mark.slow
def test_a_base_quantized_otherwise_than_in_training(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    short = {**recipe, "training": {"batch_size": 4, "steps": 1}}
    groundup.train(short, runs=tmp_path)
    trainer = groundup.trainer(tuning(short, tmp_path, rank=2, base="nf4"), runs=tmp_path)
    checkpoint, settings = trainer.state_dict(), trainer.recipe.adapter
    trainer.close()
    assert settings is not None
    for kept, words in (
        (settings.model_copy(update={"base": "int8"}), "int8"),
        (Adapter(rank=2), "fp32"),
    ):
        run = trainer.run
        run = type(run)(run.folder, run.recipe.model_copy(update={"adapter": kept}), run.storage)
        frozen = FrozenWeightsRef(frozenset(), base_reference(run))
        expected = (
            r"was trained next to a base in nf4, doubly quantised, but the run's recipe.yaml says"
            rf" {words}\. Restore"
        )
        with pytest.raises(CheckpointError, match=expected):
            frozen.complete(checkpoint, trainer.model, "here")


@pytest.mark.slow
def test_an_adapter_for_another_base(recipe: dict[str, Any], tmp_path: Path) -> None:
    groundup.train(recipe, runs=tmp_path)
    tuned = tuning(recipe, tmp_path, rank=2)
    folder = groundup.train(tuned, runs=tmp_path).folder
    shutil.rmtree(tmp_path / "small")
    groundup.train({**recipe, "seed": 1}, runs=tmp_path)
    with pytest.raises(
        CheckpointError,
        match=r"is an adapter for other weights than .*small holds at step 6 \(SHA-256",
    ):
        groundup.load(folder)
    with pytest.raises(RunError, match="was fine-tuned from other weights"):
        groundup.train(tuned, runs=tmp_path)
    newest = groundup.runs.run.Run.open(folder).checkpoints
    trainer = groundup.training.build.build_trainer(groundup.runs.run.Run.open(folder))
    with pytest.raises(
        CheckpointError, match=r"is an adapter for other weights .*Restore that run as it was"
    ):
        trainer.load_state_dict(newest.load(6))
    trainer.close()
    with pytest.raises(
        CheckpointError,
        match=r"adapter: is an adapter for other weights \(SHA-256 .*Use it with the",
    ):
        groundup.load(tmp_path / "small", adapter=folder)
    with pytest.raises(
        CheckpointError, match=r"adapter: is an adapter for other weights \(SHA-256"
    ):
        groundup.trainer(
            {**tuned, "name": "on", "adapter": {"rank": 2, "path": str(folder)}}, runs=tmp_path
        )


@pytest.mark.slow
def test_going_on_with_other_settings(recipe: dict[str, Any], tmp_path: Path) -> None:
    groundup.train(recipe, runs=tmp_path)
    folder = groundup.train(
        tuning(recipe, tmp_path, rank=2, targets=["query"]), runs=tmp_path
    ).folder
    for adapter, expected in (
        (
            {"name": "dora", "rank": 2, "targets": ["query"]},
            r"recipe.adapter.name: gives dora, but .* has lora",
        ),
        (
            {"alpha": 3.0},
            r"adapter.alpha: gives 3.0, but the adapter in .* has 16.0\. Remove alpha: what that",
        ),
        ({"rank": 3}, r"adapter.rank: gives blocks.\d.attention.query: 3, but .*query: 2"),
        ({"bias": "all"}, "adapter.bias: gives all, but .* has none"),
        (
            {"rank": 3, "targets": ["query"]},
            r"adapter.targets: gives blocks.\d.attention.query: 3, but .*query: 2",
        ),
        (
            {"rank": 2, "targets": ["query", "key"]},
            r"gives blocks.\d.attention.key: 2, but .*attention.key: None",
        ),
    ):
        with pytest.raises(RecipeError, match=expected):
            groundup.trainer(
                tuning(recipe, tmp_path, path=str(folder), **adapter), runs=tmp_path / "more"
            )
        shutil.rmtree(tmp_path / "more", ignore_errors=True)


# --------------------------------------------------------------------------------------- the folder
@pytest.fixture
def folder(recipe: dict[str, Any], tmp_path: Path) -> Path:
    """An adapter on the run ``small``."""
    groundup.train({**recipe, "training": {"batch_size": 4, "steps": 1}}, runs=tmp_path)
    tuned = tuning(recipe, tmp_path, rank=2, targets=["query"])
    return (
        groundup.train({**tuned, "training": {"batch_size": 4, "steps": 1}}, runs=tmp_path).folder
        / "adapter"
    )


@pytest.mark.slow
def test_folders_that_are_damaged_or_hold_something_else(folder: Path, tmp_path: Path) -> None:
    def says(expected: str) -> None:
        with pytest.raises(CheckpointError, match=expected):
            groundup.load(tmp_path / "small", adapter=folder)

    values, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    prefix = "base_model.model.model.layers.0.self_attn.q_proj."

    def write(changed: dict[str, Any], some: dict[str, torch.Tensor]) -> None:
        (folder / CONFIG).write_text(json.dumps(values | changed))
        save_file(some, folder / WEIGHTS)

    write({"peft_type": "IA3"}, tensors)
    says(r'adapter_config.json: peft_type is "IA3"; allowed: LORA\. Use another adapter, or merge')
    write({"bias": "some"}, tensors)
    says('bias is "some"; allowed: none, lora_only or all')
    write({"use_dora": True}, tensors)
    says("lacks magnitude of model.layers.0.self_attn.q_proj")
    write({}, {**tensors, f"{prefix}lora_magnitude_vector": torch.ones(32)})
    says("has an unknown magnitude of model.layers.0.self_attn.q_proj")
    write({}, {key.replace("q_proj", "qkv"): value for key, value in tensors.items()})
    says(
        r"adapts model.layers.0.self_attn.qkv, but this model has only"
        r" .*model.layers.\*.self_attn.q_proj"
    )
    write({}, {**tensors, f"{prefix}lora_A.weight": torch.zeros(2, 9)})
    says(
        "adapts model.layers.0.self_attn.q_proj from 9 numbers to 32; this model's is from 32 to 32"
    )
    write({}, {**tensors, "base_model.model.head.weight": torch.zeros(2, 2)})
    says(r"adapter: holds head.weight, which this model has no place for\. Use the model that")
    write({}, {f"{prefix}lora_X.weight": torch.zeros(2, 2)})
    says(r"holds .*lora_X.weight, which this model has no place for")
    save_file({}, folder / WEIGHTS)
    says("adapter: holds no tensors")
    (folder / WEIGHTS).write_bytes(b"nothing")
    says("adapter: cannot be read: SafetensorError")
    (folder / CONFIG).write_text("{")
    says("adapter_config.json: cannot be read as JSON")
    (folder / WEIGHTS).unlink()
    says(rf"adapter: holds no adapter \(it has no {WEIGHTS}\)\. Give a folder in PEFT's layout")


@pytest.mark.slow
def test_configs_and_tensors_that_are_malformed(folder: Path, tmp_path: Path) -> None:
    run = groundup.runs.run.Run.open(tmp_path / "small")
    weights, values, tensors = (
        run.checkpoints.load(1).model,
        json.loads((folder / CONFIG).read_text()),
        load_file(folder / WEIGHTS),
    )
    module = "base_model.model.model.layers.0.self_attn.q_proj."
    a, b = f"{module}lora_A.weight", f"{module}lora_B.weight"
    contents: list[tuple[dict[str, torch.Tensor], dict[str, str], str]] = [
        (
            {a: torch.zeros(32)},
            {},
            r"has lora_A \[32\], lora_B \[32, 2\] of model.layers.0.self_attn.q_proj; allowed: A",
        ),
        ({a: torch.zeros(3, 32)}, {}, r"has lora_A \[3, 32\], lora_B \[32, 2\]"),
        (
            {b: torch.zeros(32, 2, dtype=torch.int32)},
            {},
            "has lora_B of .* as torch.int32, no float",
        ),
        ({b: torch.zeros(9, 2)}, {}, "from 32 numbers to 9; this model's is from 32 to 32"),
        (
            {},
            {"stacked": "[1]"},
            r"adapter_model.safetensors: stacked in its header is \[1\]; allowed: ranks by",
        ),
        ({}, {"stacked": "{"}, "stacked in its header is {; allowed"),
        (
            {},
            {"stacked": '{"model.layers.0.self_attn.q_proj": [9]}'},
            r"q_proj the ranks \[9\]; it has 2 in all",
        ),
    ]

    def says(expected: str) -> None:
        with pytest.raises(CheckpointError, match=expected):
            read_adapter_folder(folder, run.recipe.model, weights)

    (folder / CONFIG).write_text(
        json.dumps({key: value for key, value in values.items() if key != "lora_alpha"})
    )
    says("adapter_config.json: has no lora_alpha; allowed: a number above 0")
    for text in ("[]", "3", "null", "[" * 100_000):
        (folder / CONFIG).write_text(text)
        says("adapter_config.json: (holds no JSON object|cannot be read as JSON)")
    for neutral in ({"a_key_of_tomorrow": None}, {"kasa_config": {}}, {"target_parameters": []}):
        (folder / CONFIG).write_text(json.dumps(values | neutral))
        read_adapter_folder(folder, run.recipe.model, weights)
    (folder / CONFIG).write_text(json.dumps(values))
    for some, header, expected in contents:
        save_file(tensors | some, folder / WEIGHTS, metadata=header)
        says(expected)
    save_file(tensors | {f"{module}lora_magnitude_vector": torch.ones(5)}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(values | {"use_dora": True}))
    says(
        r"has 5 lengths for model.layers.0.self_attn.q_proj; allowed: 32, one an output\."
        r" Restore it"
    )
    (folder / CONFIG).write_text(json.dumps(values))
    save_file(tensors, folder / WEIGHTS)
    whole = (folder / WEIGHTS).read_bytes()
    for damaged in (
        whole[:-7],
        whole[:40],
        whole[:3],
        b"",
        b"\xff" * 8 + whole[8:],
        whole.replace(b"F32", b"F3?", 1),
    ):
        (folder / WEIGHTS).write_bytes(damaged)
        says("adapter: cannot be read: ")


@pytest.mark.slow
def test_tensors_without_a_place(folder: Path, tmp_path: Path, recipe: dict[str, Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "base_model.model.score.weight": torch.zeros(2, 2)}, folder / WEIGHTS)
    tuned = tuning(recipe, tmp_path, rank=2, targets=["query"], path=str(folder))
    with pytest.raises(
        CheckpointError,
        match=r"holds score.weight, which this model has no place for\. Use the model that",
    ):
        groundup.trainer({**tuned, "name": "on"}, runs=tmp_path)


@pytest.mark.slow
def test_ranks_come_from_the_tensors(folder: Path, tmp_path: Path) -> None:
    run = groundup.runs.run.Run.open(tmp_path / "small")
    weights = run.checkpoints.load(1).model
    found = read_adapter_folder(folder, run.recipe.model, weights)
    assert found.ranks == {"blocks.0.attention.query": 2, "blocks.1.attention.query": 2}
