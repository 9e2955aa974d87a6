"""Pretrained weights read from folders that transformers wrote are the same model: logits,
gradients, tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import FAMILIES, transformers, write_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.core.registry import lookup
from groundup.core.settings import validate
from groundup.formats.huggingface_folder import find_pretrained
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.models.gpt import GPTConfig
from groundup.recipe.fill_from_init import inherit
from groundup.weights.load import read_pretrained


def opened(folder: Path, **changed: Any) -> Any:
    """Return our model of a folder's weights, read as a run reads them."""
    raw: dict[str, Any] = {"init": {"pretrained": str(folder)}, "model": changed}
    inherit(raw, {}, complete=False)
    section = raw["model"]
    config: Any = validate(lookup("model", section.pop("name")), section, "recipe.model")
    model = config.build()
    model.load_state_dict(read_pretrained(find_pretrained(str(folder)), config), strict=True)
    return model.eval()


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= 1e-4
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_forward_step_by_step_and_beside_padding(family: str, tmp_path: Path) -> None:
    module = write_model(tmp_path, family)
    model = opened(tmp_path)
    tokens = torch.randint(61, (2, 40))
    expected = module(tokens).logits
    assert_near(model(tokens), expected)

    cache = model.new_cache(2, 40)
    # Beyond where a long Phi-3 has other wavelengths: `generate` reads a text again there.
    steps = [
        model(tokens[:, :25], cache=cache),
        *(model(tokens[:, at : at + 1], cache=cache) for at in range(25, 40)),
    ]
    assert_near(torch.cat(steps, 1), expected)

    shorter, length = (
        tokens[1, :25],
        25,
    )  # in a batch padded on the left as transformers does it, and alone as we do
    padded = torch.stack([tokens[0], torch.cat([torch.zeros(15, dtype=torch.int64), shorter])])
    mask = torch.ones_like(padded)
    mask[1, :15] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    theirs = module(padded, attention_mask=mask, position_ids=places).logits
    assert_near(model(tokens[:1]), theirs[:1])
    assert_near(model(shorter[None]), theirs[1:, -length:])


@pytest.mark.slow
@torch.no_grad()
def test_a_long_phi3_writes_the_same_alone_beside_others_and_with_more_room(tmp_path: Path) -> None:
    """It has other wavelengths above 20 tokens, by each text's own length."""
    module = write_model(tmp_path, "phi3-long")
    model = opened(tmp_path)
    prompts = [torch.randint(4, 61, (size,)).tolist() for size in (5, 18, 27)]
    expected = []
    for prompt in prompts:
        text = list(prompt)
        for _ in range(20):
            text.append(int(module(torch.tensor([text])).logits[0, -1].argmax()))
        expected.append(text[len(prompt) :])
    for count in (10, 20):
        options = DecodingOptions(max_new_tokens=count, temperature=0)
        together = generate_batch(model, prompts, options)
        alone = [generate_batch(model, [prompt], options)[0] for prompt in prompts]
        assert together == alone == [text[:count] for text in expected]


STRETCHED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({"kind": "linear", "factor": 3.0}, {"rope_type": "linear", "factor": 3.0}),
    "dynamic": ({"kind": "dynamic", "factor": 3.0}, {"rope_type": "dynamic", "factor": 3.0}),
    "yarn": (
        {"kind": "yarn", "factor": 3.0},
        {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 64},
    ),
    "llama3": (
        {"kind": "llama3", "factor": 3.0},
        {
            **{"rope_type": "llama3", "factor": 3.0, "original_max_position_embeddings": 64},
            **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama2", "mistral-full", "qwen2", "qwen3"])
@pytest.mark.parametrize("kind", STRETCHED)
@torch.no_grad()
def test_a_longer_context_by_stretching(kind: str, family: str, tmp_path: Path) -> None:
    """As transformers reads the same weights when their config.json says so."""
    write_model(tmp_path, family)
    ours, theirs = STRETCHED[kind]
    model = opened(tmp_path, context_length=192, rope_scaling=ours)
    path = tmp_path / "config.json"
    before = json.loads(path.read_text())
    rope = {**before["rope_parameters"], **theirs}
    length = {} if kind == "dynamic" else {"max_position_embeddings": 192}
    path.write_text(json.dumps({**before, "rope_parameters": rope, **length}))
    auto = transformers.AutoModelForCausalLM
    for size in (40, 150):
        # A module of its own each time: a dynamic one keeps the longest base that it has seen.
        module = auto.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
        tokens = torch.randint(61, (1, size))
        expected = module.eval()(tokens).logits
        assert_near(model(tokens), expected)
    shorter = torch.randint(61, (1, 42))
    packed = torch.cat([shorter, tokens], 1)
    edges = torch.tensor([0, 42, 192], dtype=torch.int32)
    places = torch.cat([torch.arange(42), torch.arange(150)])[None]
    assert_near(model(packed, positions=places, boundaries=edges)[:, 42:], expected)

    values, tensors = model.config.to_huggingface(model.state_dict())
    again = tmp_path / "again"
    again.mkdir()
    (again / "config.json").write_text(json.dumps(values))
    save_file(tensors, again / "model.safetensors", {"format": "pt"})
    other = auto.from_pretrained(again, dtype=torch.float32, attn_implementation="eager")
    assert_near(other.eval()(tokens).logits, expected)
    reopened = opened(again, context_length=192)
    assert_near(reopened(tokens), expected)

    options = DecodingOptions(max_new_tokens=8, temperature=0)
    prompts = [tokens[0, :60].tolist(), tokens[0, :90].tolist()]
    for prompt, text in zip(prompts, generate_batch(model, prompts, options), strict=True):
        for count in range(8):
            read = torch.tensor([prompt + text[:count]])
            assert model(read)[0, -1].argmax() == text[count]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama3", "qwen3", "gemma3-wide", "phi3-short"])
def test_gradients_of_the_loss(family: str, tmp_path: Path) -> None:
    module = write_model(tmp_path, family)
    model = opened(tmp_path)
    tokens = torch.randint(61, (2, 30))
    loss = model(tokens[:, :-1], targets=tokens[:, 1:]) / tokens[:, 1:].numel()
    expected = module(tokens, labels=tokens).loss
    assert abs(loss - expected) <= 1e-5 * abs(expected)
    loss.backward()
    expected.backward()
    theirs = {name: p.grad for name, p in module.named_parameters()}
    converted = model.config.weights_from_huggingface(theirs)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad - converted[name]).norm() <= 2e-5 * converted[name].norm() + 1e-8, (
            name
        )


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_there_and_back_gives_the_same_bits(family: str, tmp_path: Path) -> None:
    module = write_model(tmp_path, family)
    model = opened(tmp_path)
    values, tensors = model.config.to_huggingface(model.state_dict())
    stored = load_file(tmp_path / "model.safetensors")
    assert tensors.keys() == stored.keys()
    assert all(torch.equal(tensors[name], stored[name]) for name in stored)
    again = tmp_path / "again"
    again.mkdir()
    (again / "config.json").write_text(json.dumps(values))
    save_file(tensors, again / "model.safetensors", {"format": "pt"})
    tokens = torch.randint(61, (1, 40))
    other = transformers.AutoModelForCausalLM.from_pretrained(
        again, dtype=torch.float32, attn_implementation="eager"
    )
    torch.testing.assert_close(other.eval()(tokens).logits, module(tokens).logits)
    assert opened(again).config == model.config


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@torch.no_grad()
def test_other_dtypes_are_widened_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    module = write_model(tmp_path, "smollm2", dtype=dtype)
    assert load_file(tmp_path / "model.safetensors")["model.norm.weight"].dtype == dtype
    model = opened(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    tokens = torch.randint(61, (2, 20))
    assert_near(model(tokens), module(tokens).logits)


@pytest.mark.slow
@torch.no_grad()
def test_shards_hold_the_same_model(tmp_path: Path) -> None:
    module = write_model(tmp_path, "llama3", shard="20KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    tokens = torch.randint(61, (2, 20))
    assert_near(opened(tmp_path)(tokens), module(tokens).logits)


@pytest.mark.slow
@torch.no_grad()
def test_fewer_learned_positions_are_the_first_of_them(tmp_path: Path) -> None:
    module = write_model(tmp_path, "gpt2")
    model = opened(tmp_path, context_length=20)
    assert model.positions is not None
    assert model.positions.weight.shape == (20, 32)
    tokens = torch.randint(61, (2, 20))
    assert_near(model(tokens), module(tokens).logits)


@pytest.mark.slow
@torch.no_grad()
def test_old_files_of_gpt2_without_a_prefix_and_with_masks(tmp_path: Path) -> None:
    module = write_model(tmp_path, "gpt2")
    stored = load_file(tmp_path / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    old["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(old, tmp_path / "model.safetensors")
    tokens = torch.randint(61, (2, 20))
    assert_near(opened(tmp_path)(tokens), module(tokens).logits)


@pytest.mark.parametrize("family", ["llama2", "mistral", "qwen2", "qwen3", "gpt2"])
def test_what_config_json_leaves_out_is_transformers_default(family: str) -> None:
    """As in hand-written and old files. The shapes are compared, the models too large to build."""
    kind = {"llama2": "llama"}.get(family, family)
    full = transformers.AutoConfig.for_model(kind).to_dict()
    bare, complete = (
        GPTConfig.from_huggingface({"model_type": kind}),
        GPTConfig.from_huggingface(full),
    )
    assert bare == complete
    validate(GPTConfig, bare, "recipe.model")


@torch.no_grad()
def test_configs_as_transformers_4_wrote_them(tmp_path: Path) -> None:
    module = write_model(tmp_path, "llama3")
    values = json.loads((tmp_path / "config.json").read_text())
    rope = values.pop("rope_parameters")
    values |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope, "torch_dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    tokens = torch.randint(61, (1, 40))
    assert_near(opened(tmp_path)(tokens), module(tokens).logits)


_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
}
PUBLISHED: dict[
    str, dict[str, Any]
] = {  # what config.json of these models says, less what nothing is built of
    "gpt2": {
        **{
            "activation_function": "gelu_new",
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
        },
        **{
            "layer_norm_epsilon": 1e-5,
            "n_ctx": 1024,
            "n_embd": 768,
            "n_head": 12,
            "n_layer": 12,
            "n_positions": 1024,
        },
        "vocab_size": 50257,
    },
    "smollm2-135m": {
        **_LLAMA,
        **{
            "attention_bias": False,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "max_position_embeddings": 8192,
        },
        **{
            "mlp_bias": False,
            "num_attention_heads": 9,
            "num_hidden_layers": 30,
            "num_key_value_heads": 3,
        },
        **{
            "is_llama_config": True,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-5,
            "rope_interleaved": False,
        },
        **{
            "rope_scaling": None,
            "rope_theta": 100000,
            "tie_word_embeddings": True,
            "vocab_size": 49152,
        },
    },
    "llama3.2-1b": {
        **_LLAMA,
        **{
            "head_dim": 64,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "max_position_embeddings": 131072,
        },
        **{
            "num_attention_heads": 32,
            "num_hidden_layers": 16,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5,
        },
        "rope_scaling": {
            **{
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "rope_type": "llama3",
            },
            "original_max_position_embeddings": 8192,
        },
        **{"rope_theta": 500000.0, "tie_word_embeddings": True, "vocab_size": 128256},
    },
    "qwen3-0.6b": {
        **{
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "head_dim": 128,
            "hidden_act": "silu",
        },
        **{
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "max_position_embeddings": 40960,
            "max_window_layers": 28,
        },
        **{
            "num_attention_heads": 16,
            "num_hidden_layers": 28,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-6,
        },
        **{
            "rope_scaling": None,
            "rope_theta": 1000000,
            "sliding_window": None,
            "tie_word_embeddings": True,
        },
        **{"use_sliding_window": False, "vocab_size": 151936, "attention_bias": False},
    },
    "mistral-7b": {
        **{
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "hidden_act": "silu",
        },
        **{"hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768},
        **{
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5,
        },
        **{
            "rope_theta": 10000.0,
            "sliding_window": 4096,
            "tie_word_embeddings": False,
            "vocab_size": 32000,
        },
    },
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_configs_are_the_named_sizes(size: str) -> None:
    settings = GPTConfig.from_huggingface(PUBLISHED[size])
    found, named = (
        validate(GPTConfig, settings, "recipe.model").completed(),
        GPTConfig.sizes()[size],
    )
    padding = {"vocabulary_size": named.vocabulary_size, "vocabulary_multiple": 1}
    assert found == named.completed() | padding
