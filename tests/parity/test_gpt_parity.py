"""The GPT against transformers' models, and packed documents against separate ones."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from later import Library
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.gpt import GPTConfig
from groundup.models.names.huggingface import gpt2, llama
from groundup.nn.packed_attention import packed_attention
from groundup.nn.transformer import DecoderLM

pytestmark = pytest.mark.xdist_group("transformers")  # imported once, by one worker

transformers: Any = Library("transformers")

SHAPE: dict[str, Any] = {
    **{
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    **{"num_key_value_heads": 2, "max_position_embeddings": 40, "attn_implementation": "eager"},
}
GPT2 = {
    "vocab_size": 61,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
    "attn_implementation": "eager",
}
FAMILIES: dict[str, tuple[str, dict[str, Any], ModuleType]] = {
    "gpt2": ("GPT2", GPT2, gpt2),
    "gpt2-untied": (
        "GPT2",
        {**GPT2, "tie_word_embeddings": False, "activation_function": "gelu", "n_inner": 40},
        gpt2,
    ),
    "llama": (
        "Llama",
        {**SHAPE, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        llama,
    ),
    "llama-tied-bias": (
        "Llama",
        {**SHAPE, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
        llama,
    ),
    "mistral": ("Mistral", {**SHAPE, "sliding_window": 7}, llama),
    "qwen2": ("Qwen2", SHAPE, llama),
    "qwen3": ("Qwen3", {**SHAPE, "head_dim": 16, "tie_word_embeddings": True}, llama),
}


def theirs(family: str) -> tuple[Any, dict[str, Tensor]]:
    name, options, _ = FAMILIES[family]
    torch.manual_seed(1)
    config = getattr(transformers, f"{name}Config")(**options)
    module = getattr(transformers, f"{name}ForCausalLM" if name != "GPT2" else "GPT2LMHeadModel")(
        config
    ).eval()
    with torch.no_grad():
        for parameter in module.parameters():  # norms and biases too, so that a mistaken name shows
            parameter.add_(torch.randn_like(parameter) * 0.1)
    state = dict(module.state_dict())
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    return module, state


def ours(family: str, module: Any, state: dict[str, Tensor]) -> DecoderLM:
    names = FAMILIES[family][2]
    config = GPTConfig(**names.config_to_groundup(module.config.to_dict()))
    model: DecoderLM = config.build()
    model.load_state_dict(names.to_groundup(state, config.completed()), strict=True)
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_loss_equal_transformers(family: str) -> None:
    module, state = theirs(family)
    model = ours(family, module, state)
    tokens = torch.randint(61, (2, 30))
    with torch.no_grad():
        expected = module(tokens).logits
        assert (model(tokens) - expected).abs().max() < 1e-4
        loss = model(tokens[:, :-1], targets=tokens[:, 1:]) / tokens[:, 1:].numel()
        assert abs(loss - module(tokens, labels=tokens).loss) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_names_round_trip_bit_identical(family: str) -> None:
    module, state = theirs(family)
    model = ours(family, module, state)
    values, back = model.config.to_huggingface(model.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    again = GPTConfig(**FAMILIES[family][2].config_to_groundup(values))
    completed = {
        "head_dim": model.config.dim,
        "mlp_width": model.config.hidden,
        "kv_heads": model.config.groups,
    }
    assert again.model_copy(update=completed) == model.config.model_copy(update=completed)
    assert (again.dim, again.hidden, again.groups) == tuple(completed.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_our_config_opens_in_transformers(family: str) -> None:
    module, state = theirs(family)
    values, _ = ours(family, module, state).config.to_huggingface({})
    config = transformers.AutoConfig.for_model(**values)
    other = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager"
    ).eval()
    other.load_state_dict(state, strict=False)
    other.tie_weights()
    tokens = torch.randint(61, (1, 20))
    with torch.no_grad():
        torch.testing.assert_close(other(tokens).logits, module(tokens).logits)


@pytest.mark.parametrize("names", [gpt2, llama])
def test_a_tensor_without_a_place_is_an_error(names: ModuleType) -> None:
    with pytest.raises(CheckpointError, match=r"no place for .*lora"):
        names.to_groundup(
            {"model.lora.weight": torch.zeros(1)}, GPTConfig(vocabulary_size=5).completed()
        )
    with pytest.raises(CheckpointError, match="no place for lora"):
        names.to_huggingface(
            {"lora.weight": torch.zeros(1)}, GPTConfig(vocabulary_size=5).completed()
        )


VARIANTS: dict[str, dict[str, Any]] = {
    "rotary": {},
    "grouped": {"kv_heads": 2, "qk_norm": True},
    "window": {"kv_heads": 1, "sliding_window": 5},
    "learned": {
        "positions": "learned",
        "norm": "layernorm",
        "activation": "gelu_tanh",
        "bias": "all",
    },
}


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_packed_documents_equal_separate_ones(
    variant: str, dtype: torch.dtype, bound: float
) -> None:
    torch.manual_seed(0)
    config = GPTConfig(
        vocabulary_size=50, width=32, heads=4, layers=2, context_length=24, **VARIANTS[variant]
    )
    model = config.build().to(dtype)
    lengths = [9, 14, 1, 8, 8, 8]  # two rows of 24
    documents = [torch.randint(50, (1, n)) for n in lengths]
    targets = [torch.randint(50, (1, n)).masked_fill(torch.rand(1, n) < 0.2, -100) for n in lengths]
    separate = sum(model(d, targets=t) for d, t in zip(documents, targets, strict=True))
    assert isinstance(separate, Tensor)
    expected = torch.autograd.grad(separate, list(model.parameters()), allow_unused=False)

    boundaries = torch.tensor(
        [0, *torch.tensor(lengths).cumsum(0).tolist(), 48, 48], dtype=torch.int32
    )
    positions = torch.cat([torch.arange(n) for n in lengths]).view(2, 24)
    tokens, wanted = torch.cat(documents, 1).view(2, 24), torch.cat(targets, 1).view(2, 24)
    packed = model(tokens, positions, boundaries, wanted)
    found = torch.autograd.grad(packed, list(model.parameters()))
    assert packed.dtype == dtype
    assert abs(packed - separate) <= bound * abs(separate)
    scale = max(float(g.abs().max()) for g in expected)
    assert (
        max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
        <= bound * scale
    )

    logits = model(tokens, positions, boundaries)
    alone = torch.cat([model(d) for d in documents], 1).view_as(logits)
    assert (logits - alone).abs().max() <= bound
    losses = model.token_losses(tokens, wanted, positions, boundaries)
    assert abs(losses.sum() - packed) <= bound * abs(separate)


@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize(
    "lengths", [[64, 64, 7], [1, 30, 30, 90], [530, 20]]
)  # 530 is past what products serve
def test_packed_attention_in_bfloat16_has_the_gradients_of_float32(
    lengths: list[int], groups: int, window: int | None
) -> None:
    torch.manual_seed(0)
    boundaries = torch.tensor(
        [0, *torch.tensor(lengths).cumsum(0).tolist(), sum(lengths)], dtype=torch.int32
    )
    shapes = [(sum(lengths), heads, 32) for heads in (4, groups, groups, 4)]
    *inputs, grad = (torch.randn(shape) for shape in shapes)

    def both(dtype: torch.dtype) -> list[Tensor]:
        query, key, value = (x.to(dtype).requires_grad_() for x in (x.clone() for x in inputs))
        out = packed_attention(query, key, value, boundaries, window)
        return [out, *torch.autograd.grad(out, (query, key, value), grad.to(dtype))]

    for found, expected in zip(both(torch.bfloat16), both(torch.float32), strict=True):
        assert found.dtype == torch.bfloat16
        assert (found.float() - expected).norm() <= 0.01 * expected.norm()
