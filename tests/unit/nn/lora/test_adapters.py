"""Runs that train adapters: what is trained, saved, merged and predicted with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from groundup.models.gpt import GPTConfig
from groundup.nn.lora.adapters import adapted, attach, detach, merge, unmerge
from groundup.nn.lora.linear import AdaptedLinear
from groundup.recipe.adapter import Adapter
from groundup.weights.quantized_base import quantize_layers

TRAINED = ("lora_A", "lora_B", "magnitude")


def model_with_adapters(**settings: Any) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = GPTConfig(
        vocabulary_size=11, layers=2, width=8, heads=2, context_length=8, tied_embeddings=False
    ).build()
    attach(model, Adapter(rank=2, **settings))
    for name, parameter in model.named_parameters():
        if name.endswith(("lora_B", "magnitude")):
            parameter.data.add_(0.3 * torch.randn(parameter.shape))
    return model.eval(), torch.randint(0, 11, (2, 8))


# --------------------------------------------------------------------------------------- the layers
FROZEN: list[dict[str, Any]] = [
    {"name": "lora"},
    {"name": "lora", "bias": "all", "activation": "gelu"},
    {"name": "lora", "dropout": 0.4, "rank_stabilized": True, "targets": {"mlp.*": 1, "query": 3}},
    {"name": "lora", "base": "nf4", "dropout": 0.4},
    {"name": "lora", "base": "int8", "bias": "all", "activation": "gelu"},
    {"name": "dora"},
    {"name": "dora", "bias": "all", "activation": "gelu", "dropout": 0.4},
    {"name": "dora", "base": "nf4", "tiny": True},
]


def frozen_with_adapters(
    width: int = 8,
    *,
    bias: str = "none",
    activation: str = "swiglu",
    tiny: bool = False,
    **settings: Any,
) -> nn.Module:
    torch.manual_seed(0)
    shape = {
        "vocabulary_size": 11,
        "layers": 2,
        "width": width,
        "heads": 2,
        "context_length": 64,
        "norm": "layernorm",
    }
    config: Any = {**shape, "activation": activation, "bias": bias}
    model = GPTConfig(**config).build()
    adapter = Adapter(**({} if "targets" in settings else {"rank": 2}), **settings)
    if adapter.base != "fp32":
        quantize_layers(model, adapter, "here")
    model.requires_grad_(requires_grad=False)
    attach(model, adapter)
    for name, parameter in model.named_parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape))
        if tiny and name.endswith("magnitude"):
            parameter.data[::2] = 1e-9
    return model


@pytest.mark.parametrize("case", FROZEN, ids=str)
def test_in_one_function_it_computes_what_its_parts_do(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = frozen_with_adapters(**case).double()
    tokens, kept = torch.randint(0, 11, (2, 8)), []

    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(1)
        loss = model(tokens, targets=tokens)
        torch.manual_seed(1)
        with torch.no_grad():
            torch.testing.assert_close(model(tokens, targets=tokens), loss)
        return [
            loss.detach(),
            *torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]),
        ]

    for shortcut in (True, False):
        if not shortcut:
            monkeypatch.setattr(AdaptedLinear, "_frozen", lambda layer, x: False)
        kept.append(gradients())
    assert len(kept[0]) == 1 + (3 if case["name"] == "dora" else 2) * len(adapted(model))
    for one, other in zip(*kept, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_dora_where_its_output_is_changed_in_place_or_the_backward_pass_runs_twice() -> None:
    layer = frozen_with_adapters(name="dora").double().get_submodule("blocks.0.mlp.up")
    x, found = torch.randn(3, 5, 8, dtype=torch.float64), []
    for in_place in (False, True):
        out = layer(x)
        out = (out.mul_(2) if in_place else out * 2).sin().sum()
        for retain in (True, False):
            found.append(
                torch.autograd.grad(out, list(layer.parameters())[1:], retain_graph=retain)
            )
    assert len(found[0]) == 3
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_a_quantized_base_and_dora_keep_no_more_than_lora() -> None:
    """Tensors saved for the backward pass, without the weights, and without the outputs that DoRA
    takes note of."""
    tokens, kept = torch.randint(0, 11, (2, 64)), {}
    for case in ("lora", "nf4", "int8", "dora", "dropout"):
        settings = {
            "nf4": {"base": "nf4"},
            "int8": {"base": "int8"},
            "dora": {"name": "dora"},
            "dropout": {"dropout": 0.4},
        }
        model = frozen_with_adapters(64, **{"name": "lora", **settings.get(case, {})})
        own = {
            each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())
        }
        sizes: dict[int, int] = {}

        def note(
            kept: torch.Tensor, own: set[int] = own, sizes: dict[int, int] = sizes
        ) -> torch.Tensor:
            where = kept.untyped_storage().data_ptr()
            sizes[where] = 0 if where in own else kept.untyped_storage().nbytes()
            return kept

        with torch.autograd.graph.saved_tensors_hooks(note, lambda each: each):
            loss = model(tokens, targets=tokens)
        kept[case] = sum(sizes.values())
        loss.backward()
    assert kept["nf4"] == kept["int8"] == kept["lora"]
    inputs = 2 * 64 * 2 * (6 * 64 + 192)  # one byte for each number that goes into a layer
    assert kept["dropout"] <= kept["lora"] + inputs
    assert kept["dora"] <= kept["lora"] + 4096


@pytest.mark.parametrize("targets", [None, ("head", "mlp.*")])
@pytest.mark.parametrize("name", ["lora", "dora"])
@torch.no_grad()
def test_merged_computes_the_same_and_unmerged_is_as_before(name: Any, targets: Any) -> None:
    model, tokens = model_with_adapters(name=name, targets=targets)
    before, weights = (
        model(tokens),
        {key: value.clone() for key, value in model.state_dict().items()},
    )
    merge(model)
    merge(model)
    assert all(layer.merged for layer in adapted(model).values())
    assert (model(tokens) - before).abs().max() < 1e-4
    assert any(not torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    unmerge(model)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(tokens), before)
    merge(model)
    detach(model)
    assert not adapted(model)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert (model(tokens) - before).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_a_layer_whose_weight_is_read_rather_than_called_is_adapted(name: Any) -> None:
    model, tokens = model_with_adapters(name=name, targets=("head",))
    model(tokens).square().sum().backward()
    head = model.get_submodule("head")
    assert isinstance(head, AdaptedLinear)
    gradients = [getattr(head, key).grad for key in TRAINED if getattr(head, key) is not None]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("name", ["lora", "dora"])
@torch.no_grad()
def test_a_new_adapter_changes_nothing(name: Any) -> None:
    torch.manual_seed(0)
    model, tokens = (
        GPTConfig(vocabulary_size=11, layers=1, width=8, heads=2).build(),
        torch.arange(8)[None],
    )
    before = model(tokens)
    attach(model, Adapter(name=name, rank=2))
    torch.testing.assert_close(model(tokens), before, rtol=1e-6, atol=1e-6)


def test_which_layers_and_ranks() -> None:
    def ranks(targets: Any) -> dict[str, int]:
        model = GPTConfig(
            vocabulary_size=11, layers=2, width=8, heads=2, tied_embeddings=False
        ).build()
        attach(
            model,
            (
                Adapter(rank=2, targets=targets)
                if not isinstance(targets, dict)
                else Adapter(targets=targets)
            ),
        )
        return {name: layer.lora_A.shape[0] for name, layer in adapted(model).items()}

    every = ranks(None)
    assert len(every) == 2 * 7
    assert "head" not in every
    assert set(ranks(("head",))) == {"head"}
    assert set(ranks(("blocks.1.attention.*",))) == {
        f"blocks.1.attention.{part}" for part in ("query", "key", "value", "output")
    }
    assert ranks({"blocks.0.mlp.up": 4, "up": 3, "query": 1}) == {
        **{"blocks.0.mlp.up": 4, "blocks.1.mlp.up": 3},
        **{"blocks.0.attention.query": 1, "blocks.1.attention.query": 1},
    }


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_under_mixed_precision(name: Any) -> None:
    model, tokens = model_with_adapters(name=name)
    with torch.autocast("cpu", torch.bfloat16):
        low = model.train()(tokens)
        low.float().square().sum().backward()
    assert (low.float() - model.eval()(tokens)).abs().max() < 0.1
    assert all(
        p.grad is not None for n, p in model.named_parameters() if n.rpartition(".")[2] in TRAINED
    )
