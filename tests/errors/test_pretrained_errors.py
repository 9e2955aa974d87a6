"""What is said about pretrained weights that are missing, damaged, hostile, or of another model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import write_model

import groundup
from groundup.core.errors import (
    CheckpointError,
    DataError,
    GroundupError,
    MissingExtraError,
    RecipeError,
)
from groundup.formats.huggingface_folder import find_pretrained
from groundup.models.gpt import GPTConfig
from groundup.recipe.recipe import load_recipe
from groundup.weights.load import read_pretrained


@pytest.fixture
def tuning(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    parts = {
        key: recipe[key]
        for key in ("name", "task", "data", "logging", "evaluation", "checkpoints", "machine")
    }
    return parts | {"init": {"pretrained": str(folder)}, "training": {"batch_size": 4, "steps": 3}}


def read(folder: Path) -> dict[str, torch.Tensor]:
    """Read the weights as a run does; the config is as it was written."""
    config = GPTConfig(
        **GPTConfig.from_huggingface(json.loads((folder / "config.json").read_text()))
    )
    return read_pretrained(find_pretrained(str(folder)), config)


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# --------------------------------------------------------------------------------------- the recipe
@pytest.mark.parametrize(
    ("init", "message"),
    [
        (
            {"revision": "main"},
            "recipe.init: revision has no effect without pretrained. Remove it, or set",
        ),
        (
            {"pretrained": "BASE", "checkpoint": "best"},
            "recipe.init: checkpoint has no effect with pretrained. Remove",
        ),
        (
            {"pretrained": "BASE", "revision": "main"},
            (
                "recipe.init.revision: has no effect: BASE is a folder, but only the hub has"
                " revisions. Remove it."
            ),
        ),
        (
            {"pretrained": "./nowhere"},
            (
                "recipe.init.pretrained: there is no folder ./nowhere; and it is no name of the hub"
                " either. Give a folder"
            ),
        ),
        ({"pretrained": "BASE/../bace"}, "/base'? and it is no name of the hub either"),
    ],
)
def test_impossible_starts(
    tuning: dict[str, Any], folder: Path, init: dict[str, Any], message: str
) -> None:
    tuning["init"] = {key: value.replace("BASE", str(folder)) for key, value in init.items()}
    tuning |= (
        {"model": {"name": "gpt", "layers": 1}, "processor": "bytes"}
        if "pretrained" not in init
        else {}
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(tuning)
    assert message.replace("BASE", str(folder)) in str(caught.value)


@pytest.mark.slow
def test_a_run_and_pretrained_weights(
    tuning: dict[str, Any], recipe: dict[str, Any], tmp_path: Path
) -> None:
    run = groundup.train(recipe, runs=tmp_path)
    tuning["init"]["run"] = str(run.folder)
    with pytest.raises(
        RecipeError, match=r"run and pretrained are given, and a run starts from one. Remove one of"
    ):
        load_recipe(tuning)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"width": 64},
            (
                "recipe.model.width: is 64, but the weights of BASE have 32; free to choose:"
                " dropout, context_length, rope_scaling, tied_embeddings. Remove it: config.json says what the model is."
            ),
        ),
        (
            {"rope_theta": 7.0},
            "recipe.model.rope_theta: is 7.0, but the weights of BASE have 10000.0",
        ),
        (
            {"context_length": 99},
            (
                "recipe.model.context_length: is 99, but BASE was trained for 64. Use at most 64, or"
                " stretch it: model.rope_scaling: {kind: yarn, factor: 2.0}."
            ),
        ),
        (
            {"context_length": 129, "rope_scaling": {"kind": "yarn", "factor": 2.0}},
            (
                "recipe.model.context_length: is 129, but BASE was trained for 64, which"
                " rope_scaling stretches to 128. Use at most 128."
            ),
        ),
        ({"lyers": 1}, "did you mean 'layers'"),
        (
            {"name": "mlp"},
            (
                "recipe.model.name: no Hugging Face layout is known for model 'mlp'; allowed: gpt,"
                " gemma3, phi3, encoder_decoder, whisper, hub, bert"
            ),
        ),
        ({"name": "gtp"}, "there is no model 'gtp'; did you mean 'gpt'"),
        (
            {"name": "phi3"},
            (
                "recipe.model.name: is phi3, but the weights of BASE are of model gpt. Remove it: the"
                " weights say what"
            ),
        ),
    ],
)
def test_a_model_section_that_does_not_agree(
    tuning: dict[str, Any], folder: Path, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(tuning | {"model": section})
    assert message.replace("BASE", str(folder)) in str(caught.value)


def test_without_the_library_of_the_hub(
    tuning: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    tuning["init"] = {"pretrained": "nobody/nothing"}
    with pytest.raises(
        MissingExtraError, match=r"huggingface_hub: is not installed. .*groundup\[pretrained\]"
    ):
        load_recipe(tuning)


def test_no_tokenizer_and_one_that_is_too_large(
    tuning: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(
        DataError,
        match=r"base: holds no tokenizer.json; a tokenizer.model .* not read. Write one with",
    ):
        groundup.trainer(tuning, runs=tmp_path / "runs")
    (tmp_path / "tokenizer.json").rename(folder / "tokenizer.json")
    write_model(folder, "llama2", vocab_size=300)
    with pytest.raises(RecipeError, match="the tokenizer has 320 tokens, but the model 300"):
        groundup.trainer(tuning | {"name": "other"}, runs=tmp_path / "runs")


# -------------------------------------------------------------------------------------- config.json
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.json: no such file. Give a folder in Hugging Face layout."),
        ("{", "config.json: cannot be read as JSON"),
        ("[" * 100_000, "config.json: cannot be read as JSON"),
        ("[]", "config.json: holds no JSON object. Fetch the model again."),
        (
            {"model_type": "mambo", "architectures": ["MamboForCausalLM"]},
            (
                "model_type mambo (architecture: MamboForCausalLM) is built neither here nor by"
                " transformers"
            ),
        ),
        (
            {"model_type": "lama"},
            "did you mean 'llama'? built here: gpt2, llama, mistral, qwen2, qwen3, ",
        ),
        (
            {},
            (
                "model_type missing (architecture: none named) is built neither here nor by"
                " transformers"
            ),
        ),
        (
            {"model_type": "llama", "rope_scaling": {"rope_type": "longrope"}},
            "json: rotary scaling longrope",
        ),
        (
            {"model_type": "llama", "rope_scaling": "linear"},
            "config.json: holds a value of the wrong kind: Attr",
        ),
        (
            {"model_type": "llama", "hidden_size": "wide"},
            "config.json: holds a value of the wrong kind: TypeError",
        ),
        (
            {"model_type": "llama", "rms_norm_eps": "small"},
            "config.json as model gpt.norm_eps: got",
        ),
        (
            {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}},
            (
                "model_type gemma3 reads images too; supported is gemma3_text, which reads text"
                " only."
            ),
        ),
        (
            {"model_type": "gemma3_text", "attn_logit_softcapping": 50.0},
            "attn_logit_softcapping is 50.0; supported: No",
        ),
        (
            {
                "model_type": "gemma3_text",
                "num_hidden_layers": 2,
                "layer_types": ["full_attention", "chunked"],
            },
            "layer_types do not repeat: full_attention, chunked. Use a model in which each n-th",
        ),
        (
            {
                "model_type": "gemma3_text",
                "rope_parameters": {"sliding_attention": {"rope_type": "linear"}},
            },
            "local layers have rotary scaling linear; supported: default. Use another model",
        ),
        (
            {
                **{"model_type": "phi3", "original_max_position_embeddings": 1},
                "rope_scaling": {"type": "su", "short_factor": [1], "long_factor": [1]},
            },
            "holds a value of the wrong kind: ZeroDivisionError",
        ),
        (
            {"model_type": "phi3", "hidden_act": "gelu"},
            "model_type phi3, activation gelu; supported: phi3; silu. Use",
        ),
        (
            {"model_type": "phi3", "rope_scaling": {"type": "linear", "factor": 2.0}},
            (
                "rotary scaling linear; supported for phi3: default, longrope, su, yarn. Use"
                " another model"
            ),
        ),
        (
            {
                "model_type": "phi3",
                "rope_scaling": {"type": "su", "short_factor": [1], "long_factor": [1]},
            },
            (
                "short_factors has 1 numbers, the smallest 1.0. Give one above 0 for each of the 48"
                " pairs"
            ),
        ),
        (
            {"model_type": "llama", "quantization_config": {"quant_method": "gptq"}},
            (
                "the weights are quantized (gptq); allowed: fp64, fp32, fp16 and bf16. Use the"
                " model that was quantized."
            ),
        ),
    ],
    ids=str,
)
def test_configs(
    tuning: dict[str, Any], folder: Path, content: Any, message: str, tmp_path: Path
) -> None:
    path = folder / "config.json"
    path.unlink()
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    # Without a name the model hub takes over what is not built here.
    names = {"llama": "gpt", "gemma3": "gemma3", "gemma3_text": "gemma3", "phi3": "phi3"}
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind in names and "quantization_config" not in content:
        tuning = tuning | {"model": {"name": names[kind]}}
    with pytest.raises(GroundupError) as caught:
        groundup.trainer(tuning, runs=tmp_path / "runs")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"num_hidden_layers": 10**9},
            "config.json: says num_hidden_layers 1000000000, but the files hold 21 tensors",
        ),
        (
            {"num_hidden_layers": 3},
            r"tensor model.layers.2.input_layernorm.weight \[32\] is missing and 8 more",
        ),
        (
            {"num_hidden_layers": 1},
            r"no place for model.layers.1.input_layernorm.weight, .* and 6 more",
        ),
        (
            {"intermediate_size": 49},
            (
                r"base: tensor model.layers.0.mlp.gate_proj.weight has shape \[48, 32\];"
                r" config.json says \[49, 32\]"
            ),
        ),
        ({"vocab_size": 10**30}, "config.json says sizes that no model has: "),
        ({"vocab_size": 10**18}, "config.json says sizes that no model has: |config.json says"),
        (
            {"tie_word_embeddings": True},
            (
                r"tensor lm_head.weight differs from model.embed_tokens.weight, but config.json says"
                r" that they are one \(tie_word_embeddings\)\. Set model.tied_embeddings: false"
            ),
        ),
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "supported for model_type llama: LlamaForCausalLM",
        ),
    ],
    ids=str,
)
def test_configs_that_do_not_belong_to_the_weights(
    folder: Path, values: dict[str, Any], message: str
) -> None:
    change_config(folder, **values)
    with pytest.raises(CheckpointError, match=message):
        read(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 10**9},
        {"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "num_hidden_layers": 10**8},
        {"model_type": "gemma2", "num_hidden_layers": 20_000},
        {"model_type": "mixtral", "num_local_experts": 10**9},
        {"model_type": "nested", "text_config": {"n_layer": 10**9}},
    ],
    ids=str,
)
def test_more_layers_than_any_model_has(folder: Path, values: dict[str, Any]) -> None:
    change_config(folder, **values)
    with pytest.raises(CheckpointError, match=r"config.json: says \w+ \d+, but the files hold 21"):
        load_recipe({"name": "a", "init": {"pretrained": str(folder)}, "task": "language_modeling"})
    # The hub's files are fetched later: the recipe is read with config.json alone.
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="but no model has more than 10000"):
        load_recipe({"name": "a", "init": {"pretrained": str(folder)}, "task": "language_modeling"})
