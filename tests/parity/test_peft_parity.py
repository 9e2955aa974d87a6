"""Adapters beside the library PEFT, where it is installed: the same folders, the same outputs, the
same training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import groundup
from groundup.models.gpt import GPTConfig
from groundup.nn.lora.adapters import adapted, attach
from groundup.recipe.adapter import Adapter

# What the two libraries say to each other is not ours to change.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"
    ),
    pytest.mark.slow,
    pytest.mark.usefixtures("libraries"),
]
peft: Any = None
transformers: Any = None
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"tied_embeddings": False, "kv_heads": 1},
    "gpt2": {
        "positions": "learned",
        "norm": "layernorm",
        "norm_eps": 1e-5,
        "activation": "gelu_tanh",
        "bias": "all",
    },
}


@pytest.fixture
def libraries() -> None:
    """Import the libraries when a test runs, for it takes seconds."""
    globals().update({name: pytest.importorskip(name) for name in ("peft", "transformers")})


def adapter_run(recipe: dict[str, Any], runs: Path, shape: str, adapter: dict[str, Any]) -> Path:
    """Train a base and, from it, an adapter; return the latter's folder."""
    recipe["model"] |= {**SHAPES[shape], "dropout": 0.0}
    groundup.train(recipe, runs=runs)
    tuning = {
        key: recipe[key]
        for key in (
            "task",
            "data",
            "optim",
            "training",
            "logging",
            "evaluation",
            "checkpoints",
            "machine",
        )
    }
    tuning |= {"name": "tuned", "init": {"run": str(runs / "small")}, "adapter": adapter}
    tuning["optim"] = {"lr": 3e-2}
    return groundup.train(tuning, runs=runs).folder


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "targets", [None, ["attention.query", "mlp.up"], {"query": 2, "value": 3, "blocks.1.mlp.*": 5}]
)
def test_peft_opens_the_folder_with_the_same_logits(
    recipe: dict[str, Any], tmp_path: Path, shape: str, kind: str, targets: Any
) -> None:
    stable = isinstance(targets, dict)
    adapter = {"name": kind, "targets": targets, "rank_stabilized": stable} | (
        {} if stable else {"rank": 4}
    )
    folder = adapter_run(recipe, tmp_path, shape, adapter)
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "small" / "model", dtype=torch.float32
    ).eval()
    merged = transformers.AutoModelForCausalLM.from_pretrained(
        folder / "model", dtype=torch.float32
    ).eval()
    tokens = torch.randint(0, 200, (2, 20))
    with torch.no_grad():
        before = plain(tokens).logits
        theirs = peft.PeftModel.from_pretrained(plain, folder / "adapter").eval()(tokens).logits
        ours = groundup.load(folder).model(tokens)
        beside = groundup.load(tmp_path / "small", adapter=folder).model(tokens)
        size = ours.shape[-1]
        assert (before[..., :size] - ours).abs().max() > 1e-2
        assert (theirs[..., :size] - ours).abs().max() < 1e-4
        assert (merged(tokens).logits[..., :size] - ours).abs().max() < 1e-4
        assert (beside - ours).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_adapter_of_peft_is_read(
    recipe: dict[str, Any], tmp_path: Path, shape: str, kind: str
) -> None:
    recipe["model"] |= {**SHAPES[shape], "dropout": 0.0}
    groundup.train(recipe, runs=tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "small" / "model", dtype=torch.float32
    )
    names = ["c_attn", "c_fc"] if shape == "gpt2" else ["q_proj", "down_proj"]
    config = peft.LoraConfig(
        **{
            "r": 3,
            "lora_alpha": 7,
            "use_dora": kind == "dora",
            "target_modules": names,
            "task_type": "CAUSAL_LM",
        },
        **{"init_lora_weights": False, "fan_in_fan_out": shape == "gpt2"},
        **{"alpha_pattern": {f"0.*{names[0]}": 11}, "rank_pattern": {f"0.*{names[0]}": 2}},
    )
    model = peft.get_peft_model(plain, config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1.1)
    model.save_pretrained(tmp_path / "theirs")
    tokens = torch.randint(0, 200, (2, 20))
    predictor = groundup.load(tmp_path / "small", adapter=tmp_path / "theirs")
    with torch.no_grad():
        ours, theirs = predictor.model(tokens), model(tokens).logits
        assert (theirs[..., : ours.shape[-1]] - ours).abs().max() < 1e-4
        predictor.use(None)
        assert (predictor.model(tokens) - ours).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_fifty_steps_of_peft(kind: str) -> None:
    torch.manual_seed(0)
    config = GPTConfig(vocabulary_size=40, layers=2, width=16, heads=2, context_length=16)
    ours = config.build()
    values, tensors = config.to_huggingface(ours.state_dict())
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**values))
    theirs.load_state_dict(tensors, strict=False)
    attach(ours, Adapter(name=kind, rank=4, alpha=8.0, targets=("query", "value")))
    model = peft.get_peft_model(
        theirs,
        peft.LoraConfig(
            r=4, lora_alpha=8, use_dora=kind == "dora", target_modules=["q_proj", "v_proj"]
        ),
    )
    for name, parameter in ours.named_parameters():
        parameter.requires_grad_(name.rpartition(".")[2] in ("lora_A", "lora_B", "magnitude"))
    with torch.no_grad():
        for name, layer in adapted(ours).items():
            number, kept = (
                name.split(".")[1],
                {"query": "q_proj", "value": "v_proj"}[name.rpartition(".")[2]],
            )
            its = model.get_submodule(f"base_model.model.model.layers.{number}.self_attn.{kept}")
            its.lora_A["default"].weight.copy_(layer.lora_A)
    found: list[list[float]] = []
    for each in (ours, model):
        optimizer = torch.optim.AdamW([p for p in each.parameters() if p.requires_grad], lr=1e-2)
        found.append([])
        for step in range(50):
            tokens = torch.randint(
                0, 40, (4, 16), generator=torch.Generator().manual_seed(step % 4)
            )
            outputs = each(tokens) if each is ours else each(input_ids=tokens).logits
            loss = F.cross_entropy(outputs[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found[-1].append(loss.item())
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert found[0][-1] < found[0][3] - 0.01  # the same batch
