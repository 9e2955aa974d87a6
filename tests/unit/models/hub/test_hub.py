"""Architectures of transformers that are not built here, trained as our own models are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import transformers, write_model, write_tokenizer
from resuming import stopped_and_resumed
from safetensors.torch import load_file, save_file

import groundup
from groundup.core.errors import CheckpointError, DataError, MissingExtraError, RecipeError
from groundup.core.settings import validate
from groundup.formats.huggingface_folder import find_pretrained, read_config
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.models.hub.config import HubConfig
from groundup.recipe.recipe import load_recipe
from groundup.weights.load import read_pretrained

SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 320,
}
OLDER: dict[str, Any] = {
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "vocab_size": 320,
    "n_positions": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_neox": {**SHAPE, "intermediate_size": 32},  # files with older names than its modules
    "opt": {**SHAPE, "ffn_dim": 32, "word_embed_proj_dim": 16},  # positions counted from a mask
    "olmo2": {**SHAPE, "intermediate_size": 32, "num_key_value_heads": 1},
    "granite": {
        **SHAPE,
        "intermediate_size": 32,
        "logits_scaling": 4.0,
    },  # logits scaled after the head
    "falcon": {**SHAPE, "alibi": True},
    "bloom": {**OLDER, "hidden_size": 16},  # no positions to be given
    "gpt_bigcode": OLDER,
    "openai-gpt": OLDER,  # matrices stored as (in, out); keeps no keys and values
    "mamba": {**SHAPE, "state_size": 4},  # no attention
    "gemma3_text": {
        **{
            **SHAPE,
            "head_dim": 8,
            "num_key_value_heads": 1,
            "intermediate_size": 32,
            "sliding_window": 6,
        },
        "layer_types": ["sliding_attention", "full_attention"],
    },
}


def write(folder: Path, family: str, kind: str = "CausalLM", **changed: Any) -> Any:
    """Write a random model whose every parameter is random; return it as transformers reads it
    again."""
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = transformers.AutoConfig.for_model(
        family, **{**FAMILIES.get(family, SHAPE), **ends, **changed}
    )
    auto = getattr(transformers, f"AutoModelFor{kind}")
    module = auto.from_config(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    module.save_pretrained(folder)
    return auto.from_pretrained(folder, dtype=torch.float32).eval()


def opened(folder: Path, **changed: Any) -> Any:
    """Return our model of a folder's weights, read as a run reads them."""
    config = validate(
        HubConfig, HubConfig.from_huggingface(read_config(folder)) | changed, "recipe.model"
    )
    model = config.build()
    model.load_state_dict(
        read_pretrained(find_pretrained(str(folder)), config), strict=not config.outputs
    )
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_same_logits_packed_and_decoded_and_back(family: str, tmp_path: Path) -> None:
    module = write(tmp_path, family)
    model = opened(tmp_path)
    tokens = torch.randint(2, 320, (2, 24))
    torch.testing.assert_close(model(tokens), module(tokens).logits, rtol=0, atol=1e-5)

    boundaries, flat = torch.tensor([0, 5, 17, 24, 40, 48, 48], dtype=torch.int32), tokens.flatten()
    packed = model(tokens, boundaries=boundaries).flatten(0, 1)
    for start, end in ((0, 5), (5, 17), (17, 24), (24, 40), (40, 48)):
        alone = module(flat[None, start:end]).logits[0]
        torch.testing.assert_close(packed[start:end], alone, rtol=0, atol=2e-5)

    prompts = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8, 9]]
    found = generate_batch(model, prompts, DecodingOptions(max_new_tokens=6, temperature=0))
    for prompt, text in zip(prompts, found, strict=True):
        read = torch.tensor([prompt + text])
        best = module(read).logits[0, len(prompt) - 1 : -1].topk(2)
        assert [t in pair for t, pair in zip(text, best.indices.tolist(), strict=True)] == [
            True
        ] * 6
        assert (
            best.indices[:, 0] == torch.tensor(text)
        ).float().mean() >= 0.8  # ties to rounding apart

    values, tensors = model.config.to_huggingface(model.state_dict())
    stored = load_file(tmp_path / "model.safetensors")
    assert tensors.keys() == stored.keys()
    assert all(torch.equal(tensors[name], stored[name]) for name in stored)
    assert values["architectures"] == [type(module).__name__]


@pytest.mark.slow
@torch.no_grad()
def test_a_full_context_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, "olmo2")
    model, options = (
        opened(tmp_path, context_length=8),
        DecodingOptions(max_new_tokens=12, temperature=0),
    )
    together = generate_batch(model, [[5, 6, 7, 8, 9], [3]], options)
    alone = [generate_batch(model, [prompt], options)[0] for prompt in ([5, 6, 7, 8, 9], [3])]
    assert together == alone


# -------------------------------------------------------------------------------------------- a run
@pytest.fixture
def tuning(recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A recipe of three steps that starts from a random GPT-NeoX, with dropout."""
    write(tmp_path / "base", "gpt_neox")
    write_tokenizer(tmp_path / "base")
    parts = {
        key: recipe[key]
        for key in ("name", "task", "data", "logging", "evaluation", "checkpoints", "machine")
    }
    parts |= {
        "model": {"context_length": 32, "dropout": 0.1},
        "init": {"pretrained": str(tmp_path / "base")},
    }
    return parts | {"training": {"batch_size": 4, "steps": 3}, "optim": {"lr": 3e-3}}


@pytest.mark.slow
def test_a_run_from_the_folder_to_model_written_again(
    tuning: dict[str, Any], tmp_path: Path
) -> None:
    stopped_and_resumed(tuning, tmp_path / "resumed", (1, 3))
    run = groundup.train(
        tuning | {"training": {"batch_size": 4, "steps": 8}}, runs=tmp_path / "runs"
    )
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < losses[0]
    shutil.rmtree(tmp_path / "base")  # a run opens again without it
    predictor, tokens = groundup.load(run.folder), torch.randint(320, (1, 30))
    written = transformers.AutoModelForCausalLM.from_pretrained(
        run.folder / "model", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            written(tokens).logits, predictor.model(tokens), rtol=0, atol=1e-5
        )
    assert isinstance(predictor("The ", max_new_tokens=3), str)
    assert run.recipe.model.flops_per_token(30) > 0


@pytest.mark.slow
def test_an_adapter_and_layers_to_train(tuning: dict[str, Any], tmp_path: Path) -> None:
    adapter = {"name": "lora", "rank": 2}
    run = groundup.train(
        tuning | {"adapter": adapter, "model": {"context_length": 32}}, runs=tmp_path / "runs"
    )
    saved = run.checkpoints.load(3, with_optimizer=False).model
    kinds = {name.split(".")[-2] for name in saved}
    assert kinds == {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}
    theirs = load_file(run.folder / "adapter" / "adapter_model.safetensors")
    assert "base_model.model.gpt_neox.layers.0.attention.dense.lora_A.weight" in theirs

    trainer = groundup.trainer(
        tuning | {"name": "frozen", "init": {**tuning["init"], "train_layers": 1}},
        runs=tmp_path / "runs",
    )
    trainer.close()
    groups = {".".join(name.split(".")[:2]) for name, _ in trainer.trained}
    assert groups == {"blocks.1", "norm.final_layer_norm", "head.lm_head"}


def test_an_adapter_beside_the_head_is_used(tmp_path: Path) -> None:
    from groundup.nn.lora.adapters import adapted, attach
    from groundup.recipe.adapter import Adapter

    write(tmp_path, "openai-gpt")
    model, tokens = opened(tmp_path), torch.randint(320, (1, 9))
    before = model(tokens)
    attach(model, Adapter(targets={"head.lm_head": 2, "blocks.*": 2}))
    assert len(adapted(model)) == 1 + 2 * 4
    torch.testing.assert_close(model(tokens), before)
    with torch.no_grad():
        adapted(model)["head.lm_head"].lora_B.fill_(1.0)
    assert not torch.allclose(model(tokens), before)


@pytest.mark.slow
def test_chat_with_the_template_of_the_folder(tuning: dict[str, Any], tmp_path: Path) -> None:
    talks = [
        [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes."}]
        for n in range(12)
    ]
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    data = {"name": "conversations", "path": str(path), "fraction": 0.3}
    changed = {"task": "chat", "data": data, "model": {"context_length": 48}}
    trainer = groundup.trainer(tuning | changed, runs=tmp_path / "runs")
    first = [report.loss for report in trainer.steps()]
    assert first[-1] < first[0]
    batch = next(trainer.stream)
    assert 0 < (batch["targets"] >= 0).float().mean() < 0.5
    trainer.close()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["electra", "gpt_neox"])
def test_classifying_texts_with_a_new_head(
    family: str, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    kind = "CausalLM" if family == "gpt_neox" else "MaskedLM"
    extra = {} if family == "gpt_neox" else {"embedding_size": 8, "intermediate_size": 32}
    write(tmp_path / "base", family, kind, max_position_embeddings=64, **extra)
    write_tokenizer(tmp_path / "base", template=None)
    path = tmp_path / "texts.jsonl"
    rows = [
        {"text": f"number {n} is " + "good " * (n % 3 + 1), "label": "ab"[n % 2]} for n in range(24)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"name": "labelled_text", "path": str(path), "fraction": 0.25}
    parts = {
        key: recipe[key] for key in ("name", "logging", "evaluation", "checkpoints", "machine")
    } | {
        "task": "classify",
        "data": data,
    }
    parts |= {
        "init": {"pretrained": str(tmp_path / "base")},
        "training": {"batch_size": 4, "steps": 3},
    }
    run = groundup.train(parts, runs=tmp_path / "runs")
    predictor = groundup.load(run.folder)
    texts = ["number 3 is good", "number 4 is good good good good"]
    together, alone = predictor(texts, top=2), [predictor(text, top=2) for text in texts]
    assert [dict(row) for row in together] == [pytest.approx(dict(row), abs=1e-5) for row in alone]
    auto = transformers.AutoModelForSequenceClassification
    written = auto.from_pretrained(run.folder / "model", dtype=torch.float32).eval()
    tokens = torch.from_numpy(predictor.processor.encode_inputs(texts[:1])["tokens"].numpy())
    with torch.no_grad():
        torch.testing.assert_close(predictor.model(tokens), written(tokens).logits)


# ------------------------------------------------------------------------------------- what is said
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "gpt_neoxx"},
            r"gpt_neoxx .*built neither here nor by transformers 5\..*did you mean 'gpt_neox'",
        ),
        (
            {"model_type": "mine", "auto_map": {"A": "b.C"}},
            r"\(code that a folder names in auto_map is never run\)",
        ),
        ({}, r"model_type missing \(architecture: none named\)"),
    ],
)
def test_unknown_architectures(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        HubConfig.from_huggingface(config)
    assert "built here: gpt2, llama, mistral, qwen2, qwen3, gemma3, " in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"config": {"model_type": "electra"}},
            "model_type electra has no causal language model .*Use task classify",
        ),
        (
            {"config": {"model_type": "mamba"}, "outputs": 3},
            "model_type mamba has no classifier in transformers",
        ),
        (
            {"config": {"model_type": "opt", "hidden_size": "wide"}},
            "describes no opt: .*Fetch the model again",
        ),
        (
            {"config": {"model_type": "xlnet", "d_model": 16, "n_head": 2, "n_layer": 2}},
            "keeps mask_emb outside its",
        ),
    ],
)
def test_architectures_that_cannot_be_built(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message), torch.device("meta"):
        HubConfig(**settings).build()


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path, "olmo2")
    config = HubConfig(**HubConfig.from_huggingface(read_config(tmp_path)))
    stored = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"

    def says(message: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            read_pretrained(find_pretrained(str(tmp_path)), config)

    says(
        rf"tensor {name} \[32, 16\] is missing",
        {key: value for key, value in stored.items() if key != name},
    )
    says(
        rf"tensor {name} has shape \[3, 2\]; config.json says \[32, 16\]",
        stored | {name: torch.zeros(3, 2)},
    )
    says(
        "no place for model.layers.2.odd. Check that",
        stored | {"model.layers.2.odd": torch.zeros(1)},
    )
    with pytest.raises(CheckpointError, match="model: no place for odd"):
        config.to_huggingface({"odd": torch.zeros(1)})


@pytest.mark.slow
def test_what_does_not_fit_the_recipe(
    tuning: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: Any = load_recipe(tuning).model
    assert config.config["model_type"] == "gpt_neox"
    assert "transformers_version" not in config.config
    with pytest.raises(
        RecipeError,
        match=r"recipe\.model\.context_length: is 9999, but .*base was trained for 2048",
    ):
        load_recipe(tuning | {"model": {"context_length": 9999}})
    with pytest.raises(RecipeError, match="makes no tokens, which model hub reads"):
        config.complete_from(object())
    small = HubConfig(config={"model_type": "opt", "vocab_size": 20})
    trainer = groundup.trainer(tuning, runs=tmp_path / "runs")
    trainer.close()
    with pytest.raises(RecipeError, match="the tokenizer has 320 tokens, but the model 20"):
        small.complete_from(trainer.parts.processor)
    with pytest.raises(DataError, match="a text: has 3 tokens; the model reads 2"):
        opened(tmp_path / "base", outputs=2, context_length=2)(torch.ones(1, 3, dtype=torch.int64))
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(
        MissingExtraError, match=r"transformers: is not installed. .*groundup\[pretrained\]"
    ):
        HubConfig.from_huggingface({"model_type": "opt"})


def test_a_family_built_here_may_be_opened_as_the_library_does(
    tuning: dict[str, Any], tmp_path: Path
) -> None:
    write_model(tmp_path / "llama", "llama3", vocab_size=320)
    write_tokenizer(tmp_path / "llama")
    init = {"pretrained": str(tmp_path / "llama")}
    assert load_recipe(tuning | {"init": init, "model": "hub"}).model.registered_name == "hub"
    assert load_recipe(tuning | {"init": init, "model": {}}).model.registered_name == "gpt"
