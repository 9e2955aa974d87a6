"""What the library PEFT keeps in an adapter's folder besides LoRA's two matrices: read, gone on from
and written back, with the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import recipe_for, write_model, write_tokenizer

import groundup
from groundup.core.errors import CheckpointError

# What the two libraries say to each other is not ours to change.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.slow,
    pytest.mark.usefixtures("libraries"),
]
peft: Any = None
transformers: Any = None
VOCABULARY = 320
TOKENS = torch.arange(40)[None]

# What an adapter is made with, and whether it is also gone on from and written back: others are
# written like these.
FOLDERS: dict[str, tuple[dict[str, Any], bool]] = {
    "head": ({"modules_to_save": ["lm_head"]}, True),
    "embedding": ({"modules_to_save": ["embed_tokens"]}, True),
    "both": ({"modules_to_save": ["embed_tokens", "lm_head"]}, False),
    "both-tied": (
        {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
        True,
    ),
    "norm": ({"modules_to_save": ["norm"]}, True),
    "mlp": ({"modules_to_save": ["mlp"]}, False),
    "lora-embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, True),
    "lora-head": ({"target_modules": ["q_proj", "lm_head"]}, True),
    "lora-tied": (
        {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
        True,
    ),
    "dora-embedding": ({"target_modules": ["q_proj", "embed_tokens"], "use_dora": True}, True),
    "biases": ({"bias": "lora_only"}, True),
    "all-biases": ({"bias": "all"}, True),
    "lora-bias": ({"lora_bias": True}, True),
    "tokens": ({"trainable_token_indices": [3, 4]}, True),
    "pissa": ({"init_lora_weights": "pissa"}, True),
    "olora": ({"init_lora_weights": "olora"}, True),
    "pissa-dora": ({"init_lora_weights": "pissa", "use_dora": True}, False),
    "pissa-whole-rank": ({"init_lora_weights": "pissa", "r": 20, "use_rslora": True}, False),
    "orthogonal": ({"init_lora_weights": "orthogonal"}, False),
    "layers": ({"layers_to_transform": [0]}, False),
    "excluded": ({"exclude_modules": ["model.layers.0.self_attn.q_proj"]}, False),
}


@pytest.fixture
def libraries() -> None:
    """Import the libraries when a test runs, for it takes seconds."""
    globals().update({name: pytest.importorskip(name) for name in ("peft", "transformers")})


def write_base(folder: Path, tied: bool) -> None:
    shape = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": tied}
    write_model(folder / "base", "llama2", vocab_size=VOCABULARY, **shape)
    write_tokenizer(folder / "base")


def open_base(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)


def adapt(folder: Path, name: str, **settings: Any) -> torch.Tensor:
    """Write an adapter of PEFT's, and return the logits that PEFT computes with it."""
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **settings}
    model = peft.get_peft_model(open_base(folder), peft.LoraConfig(task_type="CAUSAL_LM", **given))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder / name)
    return logits(peft.PeftModel.from_pretrained(open_base(folder), folder / name))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out = model.eval()(TOKENS)
    return out if isinstance(out, torch.Tensor) else out.logits


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_every_kind_of_folder(tmp_path: Path, tied: bool) -> None:
    write_base(tmp_path, tied)
    base = groundup.train(recipe_for(tmp_path, "base"), runs=tmp_path / "runs").folder
    predictor = groundup.load(base)
    plain = predictor.model(TOKENS)
    for name, (settings, both_ways) in FOLDERS.items():
        theirs = adapt(tmp_path, name, **settings)
        predictor.use(tmp_path / name)
        assert (logits(predictor.model) - theirs).abs().max() < 1e-4, name
        assert (plain - theirs).abs().max() > 1e-3, name
        if not both_ways:
            continue
        adapter = {"path": str(tmp_path / name)}
        run = groundup.train(recipe_for(tmp_path, name, adapter=adapter), runs=tmp_path / "runs")
        assert (logits(groundup.load(run.folder).model) - theirs).abs().max() < 1e-4, name
        merged = transformers.AutoModelForCausalLM.from_pretrained(run.folder / "model")
        assert (logits(merged) - theirs).abs().max() < 1e-4, name
        back = peft.PeftModel.from_pretrained(open_base(tmp_path), run.folder / "adapter")
        assert (logits(back) - theirs).abs().max() < 1e-4, name
    predictor.use(None)
    assert torch.equal(predictor.model(TOKENS), plain)


TRAINED: dict[str, dict[str, Any]] = {
    "whole": {"rank": 2, "modules_to_save": ["norm", "embed", "blocks.1.mlp"], "bias": "all"},
    "embedding": {"targets": {"query": 2, "embed": 3}, "bias": "lora_only"},
    "tokens": {"rank": 2, "trainable_token_indices": [3, 200]},
    "head": {"targets": {"value": 3, "head": 2}},
    "head-whole": {"rank": 2, "modules_to_save": ["head"]},
}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_what_is_trained_here_is_the_same_in_peft(tmp_path: Path, tied: bool) -> None:
    write_base(tmp_path, tied)
    before = logits(open_base(tmp_path))
    for name, adapter in TRAINED.items():
        if tied and name.startswith("head"):
            continue
        recipe = recipe_for(tmp_path, name, adapter=adapter, optim={"lr": 1e-2})
        recipe["training"]["steps"] = 3
        run = groundup.train(recipe, runs=tmp_path / "runs")
        ours = logits(groundup.load(run.folder).model)
        theirs = peft.PeftModel.from_pretrained(open_base(tmp_path), run.folder / "adapter")
        assert (logits(theirs) - ours).abs().max() < 1e-4, name
        assert (before - ours).abs().max() > 1e-3, name
        held = run.checkpoints.load(3).model
        assert not any(key.endswith("attention.key.weight") for key in held), name
        if name == "tokens":
            assert held["embed.rows"].shape == (2, 32)
            assert "embed.weight" not in held


def test_starts_that_are_lost_and_the_remedies(tmp_path: Path) -> None:
    """An estimate with random numbers is refused; the two ways out give PEFT's logits."""
    write_base(tmp_path, False)
    base = groundup.train(recipe_for(tmp_path, "base"), runs=tmp_path / "runs").folder
    start = {"init_lora_weights": "pissa_niter_4"}
    adapt(tmp_path, "estimate", **start)
    expected = r"init_lora_weights is pissa_niter_4: it took a random estimate .*conversion.*merge"
    with pytest.raises(CheckpointError, match=expected):
        groundup.load(base, adapter=tmp_path / "estimate")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], **start)
    model = peft.get_peft_model(open_base(tmp_path), config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "begun")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    theirs = logits(model)
    model.peft_config["default"].init_lora_weights = "pissa_niter_4"
    model.save_pretrained(
        tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "begun")
    )
    ours = logits(groundup.load(base, adapter=tmp_path / "plain").model)
    assert (ours - theirs).abs().max() < 1e-4
    write_tokenizer(tmp_path / "merged")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    recipe = recipe_for(tmp_path, "merged", init={"pretrained": str(tmp_path / "merged")})
    run = groundup.train(recipe, runs=tmp_path / "runs")
    assert (logits(groundup.load(run.folder).model) - theirs).abs().max() < 1e-4


def test_an_untrained_start_is_the_base(tmp_path: Path) -> None:
    write_base(tmp_path, True)
    base = groundup.train(recipe_for(tmp_path, "base"), runs=tmp_path / "runs").folder
    for start in ("pissa", "olora"):
        config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=start)
        peft.get_peft_model(open_base(tmp_path), config).save_pretrained(tmp_path / start)
        ours = logits(groundup.load(base, adapter=tmp_path / start).model)
        assert (ours - logits(groundup.load(base).model)).abs().max() < 1e-5


def test_other_base_weights_next_to_an_adapter(tmp_path: Path) -> None:
    """PEFT writes the embedding next to its adapter; another one than the base's is not passed
    over."""
    write_base(tmp_path, False)
    model = open_base(tmp_path)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1.5)
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "embed_tokens"])
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(tmp_path / "other")
    recipe = recipe_for(tmp_path, "on", adapter={"path": str(tmp_path / "other")})
    expected = (
        r"holds other numbers for model.embed_tokens.weight than the base.*"
        r"set adapter.modules_to_save: \[embed\]"
    )
    with pytest.raises(CheckpointError, match=expected):
        groundup.train(recipe, runs=tmp_path / "runs")
    recipe["adapter"]["modules_to_save"] = ["embed"]
    run = groundup.train({**recipe, "name": "taken"}, runs=tmp_path / "runs")
    ours = logits(groundup.load(run.folder).model)
    assert (ours - logits(adapted)).abs().max() < 1e-4
    again = groundup.train({**recipe, "name": "taken"}, runs=tmp_path / "runs")
    assert again.recipe.adapter is not None
    settled = json.loads((run.folder / "requested.json").read_text())["adapter"]
    assert settled["path"] == str(tmp_path / "other")


def test_matrices_of_another_rank_than_the_file_says(tmp_path: Path) -> None:
    write_base(tmp_path, tied=False)
    adapt(tmp_path, "a", r=2)
    file = tmp_path / "a" / "adapter_config.json"
    file.write_text(file.read_text("utf-8").replace('"r": 2', '"r": 8'), "utf-8")
    with pytest.raises(CheckpointError, match=r"q_proj has rank 2, but 8 by adapter_config\.json"):
        groundup.load(tmp_path / "base", adapter=tmp_path / "a")
