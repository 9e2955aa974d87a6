"""Decoding one token at a time: what the model's forward computes, in floats and with 8-bit
weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.generation.single_row_decoder import FastDecoder
from groundup.inference.precision import quick, set_weights
from groundup.models.gpt import GPTConfig
from groundup.nn.lora.adapters import attach
from groundup.nn.lowbit.int8 import (
    Int8Weight,
    PackedLinear,
    quantize_layers,
    quickest_int4_operator,
    quickest_operator,
)
from groundup.nn.transformer import DecoderLM
from groundup.recipe.adapter import Adapter

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"kv_heads": 2},
    "qwen3": {"qk_norm": True, "head_dim": 8, "tied_embeddings": False, "vocabulary_multiple": 64},
    "qwen2": {"bias": "qkv"},
    "gpt2": {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh", "bias": "all"},
    "mistral": {"sliding_window": 4, "kv_heads": 1},
    "yarn": {"rope_scaling": {"kind": "yarn", "factor": 4.0, "original_context": 8}},
}
PROMPT = [1, 2, 3, 4, 5, 6, 7]
GREEDY = DecodingOptions(temperature=0.0, max_new_tokens=20)


def tiny(shape: str = "llama", seed: int = 3) -> DecoderLM:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocabulary_size": 40,
        "width": 32,
        "heads": 4,
        "layers": 2,
        "context_length": 24,
        "init_std": 0.2,
    }
    return GPTConfig(**sizes, **SHAPES[shape]).build().eval()


def token_by_token(model: Any, tokens: list[int]) -> Tensor:
    """Return the logits (T, V), the first three tokens read at once and the others one by one."""
    cache = model.new_cache(1, len(tokens))
    found = []
    with torch.no_grad():
        for part in torch.split(torch.arange(len(tokens)), [3, *[1] * (len(tokens) - 3)]):
            read = torch.tensor(tokens)[None, part]
            found.append(model(read, part[None], cache=cache, last_only=False)[0])
    return torch.cat(found)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_computes_what_the_model_computes(shape: str, dtype: torch.dtype) -> None:
    model, tokens = tiny(shape).to(dtype), [*PROMPT, *range(8, 24)]
    expected = token_by_token(model, tokens)
    assert (token_by_token(model.decoder(), tokens) - expected).abs().max() < 1e-5
    assert (token_by_token(model, tokens) - expected).abs().max() < 1e-5  # the model is as it was


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prompts", [[PROMPT], [PROMPT, [8], [9, 10]]])
def test_the_same_tokens_even_beyond_the_context(shape: str, prompts: list[list[int]]) -> None:
    model = tiny(shape)
    expected = generate_batch(model, prompts, GREEDY)
    assert len(expected[0]) == 20  # the context is full on the way, and its older half dropped
    assert generate_batch(model.decoder(), prompts, GREEDY) == expected


def test_it_keeps_no_copy_of_the_weights() -> None:
    model = tiny()
    decoder = model.decoder()
    attention: Any = next(iter(model.blocks)).attention
    weight = attention.query.weight
    joined = {
        part.weight.untyped_storage().data_ptr()
        for part in (attention.query, attention.key, attention.value)
    }
    assert len(joined) == 1
    before = token_by_token(decoder, PROMPT)
    with torch.no_grad():
        weight.mul_(-1)
    assert (token_by_token(decoder, PROMPT) - before).abs().max() > 1e-3
    assert (token_by_token(decoder, PROMPT) - token_by_token(model, PROMPT)).abs().max() < 1e-5
    assert dict(model.named_parameters()).keys() == dict(tiny().named_parameters()).keys()


def test_layers_of_other_kinds_are_called_as_they_are() -> None:
    model = tiny()
    attach(model, Adapter(rank=2, targets=("query", "up")))
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter)
    model.eval()
    expected = token_by_token(model, PROMPT)
    assert (token_by_token(model.decoder(), PROMPT) - expected).abs().max() < 1e-5


# ----------------------------------------------------------------------------------- 8 and 4 bits
@pytest.mark.parametrize(
    ("int4", "tolerance"), [(None, 1e-5), ("dequantize", 1e-5), ("int4pack", 0.02)]
)
def test_few_bits_are_the_model_with_the_weights_that_they_stand_for(
    int4: Any, tolerance: float
) -> None:
    model, like = tiny(), tiny()
    found = quantize_layers(model, "dequantize", "embed", int4)
    assert list(found.values()) == ([0, 14] if int4 is None else [14, 0])
    _use_floats(like, model)
    expected = token_by_token(like, PROMPT)
    for each in (model, model.decoder()):
        assert (
            token_by_token(each, PROMPT) - expected
        ).abs().max() < tolerance * expected.abs().max()


def _use_floats(like: Any, model: Any) -> None:
    """Put the weights that a model's few bits stand for into one of floats."""
    with torch.no_grad():
        for name, parameter in like.named_parameters():
            if parameter.ndim == 2 and name != "positions.weight":
                layer: Any = model.get_submodule(name.removesuffix(".weight"))
                parameter.copy_(layer.weight)


@pytest.mark.slow
@pytest.mark.parametrize(("operator", "tolerance"), [("dequantize", 1e-5), ("int8pack", 0.02)])
@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_the_model_with_the_weights_that_the_integers_stand_for(
    shape: str, operator: Any, tolerance: float
) -> None:
    model, like = tiny(shape), tiny(shape)
    quantize_layers(model, operator, "embed")
    assert not [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    _use_floats(like, model)
    tokens = [*PROMPT, *range(8, 24)]
    expected = token_by_token(like, tokens)
    for each in (model, model.decoder()):
        found = token_by_token(each, tokens)
        assert (found - expected).abs().max() < tolerance * expected.abs().max()
        best = expected.topk(2).values
        clear = best[:, 0] - best[:, 1] > 2 * tolerance * expected.abs().max()
        assert clear.sum() >= 5
        assert torch.equal(found.argmax(-1)[clear], expected.argmax(-1)[clear])


def test_int8_rows_and_memory() -> None:
    weight = torch.randn(6, 16)
    weight[2] = 0
    stored = Int8Weight(weight, "dequantize")
    steps = weight.abs().amax(1) / 127
    assert ((stored.dequantized() - weight).abs() <= steps[:, None] * 0.5001).all()
    assert torch.equal(stored.rows(torch.tensor([[4, 2]]))[0], stored.dequantized()[[4, 2]])
    other = Int8Weight(weight * 2, "dequantize")
    joined = Int8Weight.joined([stored, other])
    assert torch.equal(joined.dequantized(), torch.cat([stored.dequantized(), other.dequantized()]))
    assert (
        stored.integers.untyped_storage().data_ptr() == joined.integers.untyped_storage().data_ptr()
    )


@pytest.mark.slow
def test_the_operator_is_measured_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    operator, times = quickest_operator(torch.device("cpu"), width=64, repeats=1)
    assert operator in times
    narrow, narrow_times = quickest_int4_operator(torch.device("cpu"), width=64, repeats=1)
    assert narrow in narrow_times
    for quickest in (quickest_operator, quickest_int4_operator):
        assert quickest(torch.device("cuda")) == ("dequantize", {})
    kinds = {"bf16": torch.nn.Linear, "int8": PackedLinear, "int4": PackedLinear}
    for weights, kind in kinds.items():
        model = tiny()
        with caplog.at_level("INFO", "groundup"):
            set_weights(model, weights, "runs/x")
        assert f"weights in {weights}:" in caplog.text
        assert isinstance(model.get_submodule("blocks.1.mlp.down"), kind)
        decoder = quick(model)
        assert isinstance(decoder, FastDecoder)
        assert len(generate_batch(decoder, [PROMPT], GREEDY)[0]) == 20
    assert isinstance(quick(torch.nn.Linear(2, 2)), torch.nn.Linear)
