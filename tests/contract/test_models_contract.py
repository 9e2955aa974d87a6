"""What every registered model keeps: gradients everywhere, rows that do not mix, no look ahead,
weights that reload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from groundup.core.contracts.models import ModelConfig
from groundup.core.registry import lookup, names
from groundup.core.settings import validate
from groundup.models.gpt import GPTConfig
from groundup.nn import loss
from groundup.nn.loss import linear_cross_entropy, linear_cross_entropy_sum
from groundup.training.optimizers import depths

TOKENS: dict[str, list[dict[str, Any]]] = {
    "gpt": [
        {"vocabulary_size": 30, "layers": 2, "width": 32, "heads": 4, "context_length": 16},
        {
            **{
                "vocabulary_size": 30,
                "layers": 2,
                "width": 32,
                "heads": 4,
                "context_length": 16,
                "kv_heads": 2,
            },
            **{
                "qk_norm": True,
                "sliding_window": 5,
                "tied_embeddings": False,
                "vocabulary_multiple": 64,
            },
        },
        {
            **{
                "vocabulary_size": 30,
                "layers": 2,
                "width": 32,
                "heads": 4,
                "context_length": 16,
                "bias": "all",
            },
            **{
                "positions": "learned",
                "norm": "layernorm",
                "activation": "gelu_tanh",
                "dropout": 0.1,
            },
        },
    ],
    "gemma3": [
        {
            **{
                "vocabulary_size": 30,
                "layers": 3,
                "width": 16,
                "heads": 2,
                "head_dim": 8,
                "mlp_width": 20,
            },
            **{
                "context_length": 16,
                "sliding_window": 4,
                "global_every": 2,
                "attention_scale": 5.0,
                "logit_cap": 4.0,
            },
        },
    ],
    "phi3": [
        {
            **{
                "vocabulary_size": 30,
                "layers": 2,
                "width": 32,
                "heads": 4,
                "mlp_width": 20,
                "context_length": 16,
            },
            **{"rotary_share": 0.5, "sliding_window": 5, "kv_heads": 2},
            "long_rope": {
                "original_context": 12,
                "short_factors": [1, 2],
                "long_factors": [3, 4],
                "amplitude": 1.1,
            },
        },
    ],
    "hub": [
        {
            "config": {
                **{
                    "model_type": "olmo2",
                    "hidden_size": 32,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                },
                **{
                    "intermediate_size": 48,
                    "vocab_size": 30,
                    "num_key_value_heads": 2,
                    "tie_word_embeddings": True,
                },
                **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None},
            },
            "context_length": 16,
        },
        {
            "config": {
                **{
                    "model_type": "gpt_neox",
                    "hidden_size": 32,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                },
                **{"intermediate_size": 48, "vocab_size": 30, "bos_token_id": 0, "eos_token_id": 1},
            },
            "context_length": 16,
        },
    ],
}
INPUTS: dict[str, list[dict[str, Any]]] = {
    "mlp": [
        {"hidden": [8, 7], "inputs": 48, "outputs": 5},
        {
            "hidden": [8],
            "inputs": 48,
            "outputs": 5,
            "norm": "layer",
            "activation": "gelu",
            "dropout": 0.1,
        },
        {"hidden": [9], "inputs": 48, "outputs": 5, "norm": "batch", "activation": "tanh"},
        {"hidden": [], "inputs": 48, "outputs": 5},
    ],
    "cnn": [
        {"channels": [4], "hidden": [8], "input_shape": [3, 4, 4], "outputs": 5, "pool": 1},
        {
            **{
                "channels": [4, 5],
                "hidden": [],
                "input_shape": [3, 4, 4],
                "outputs": 5,
                "padding": True,
            },
            **{"batch_norm": True, "activation": "silu"},
        },
    ],
    "resnet": [
        {"layers": [1, 2], "width": 4, "input_shape": [3, 4, 4], "outputs": 5, "stem": "small"},
        {"layers": [2, 1], "width": 4, "input_shape": [3, 4, 4], "outputs": 5, "bottleneck": True},
        {
            **{
                "layers": [1, 1],
                "width": 4,
                "input_shape": [3, 4, 4],
                "outputs": 5,
                "stem": "small",
            },
            **{"stem_pool": True, "bottleneck": True},
        },
    ],
    "convnext": [
        {"layers": [1, 2], "widths": [4, 6], "patch": 1, "input_shape": [3, 4, 4], "outputs": 5},
        {
            **{
                "layers": [2],
                "widths": [8],
                "patch": 2,
                "input_shape": [3, 4, 4],
                "outputs": 5,
                "layer_scale": 0.1,
            },
            **{"stochastic_depth": 0.5},
        },
    ],
    "vit": [
        {"patch": 2, "layers": 2, "width": 12, "heads": 3, "input_shape": [3, 4, 4], "outputs": 5},
        {
            **{
                "patch": 2,
                "layers": 1,
                "width": 12,
                "heads": 2,
                "input_shape": [3, 4, 4],
                "outputs": 5,
            },
            **{
                "pooling": "mean",
                "dropout": 0.1,
                "mlp_width": 20,
                "qkv_bias": False,
                "activation": "gelu_tanh",
            },
        },
    ],
}
CASES = [(name, index) for name in TOKENS for index in range(len(TOKENS[name]))]


def without_gradient(model: nn.Module) -> list[str]:
    """Return the parameters that nothing would train."""
    without = [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    # A bias of the keys shifts all scores of a query alike: its gradient is zero but for rounding.
    return [name for name in without if not name.endswith("key.bias")]


def tiny(name: str, index: int) -> tuple[ModelConfig, nn.Module]:
    torch.manual_seed(0)
    config: ModelConfig = validate(
        lookup("model", name), (TOKENS | INPUTS)[name][index], "recipe.model"
    )
    return config, config.build()


def test_every_model_has_a_tiny_version_here() -> None:
    from test_sequence_models_contract import SEQUENCES

    assert set(names("model")) == set(TOKENS) | set(INPUTS) | set(SEQUENCES)


@pytest.mark.parametrize(("name", "index"), CASES)
class TestContract:
    def test_every_parameter_receives_a_gradient(self, name: str, index: int) -> None:
        _, model = tiny(name, index)
        tokens = torch.randint(30, (2, 16))
        model(tokens, targets=tokens.roll(-1, 1)).backward()
        assert without_gradient(model) == []

    def test_rows_do_not_mix_and_nothing_looks_ahead(self, name: str, index: int) -> None:
        _, model = tiny(name, index)
        model.eval()
        tokens = torch.randint(30, (2, 16))
        with torch.no_grad():
            before = model(tokens)
            changed = tokens.clone()
            changed[1, 9] = (changed[1, 9] + 1) % 30
            after = model(changed)
        assert before.shape == (2, 16, 30)
        torch.testing.assert_close(after[0], before[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(after[1, :9], before[1, :9], rtol=0, atol=1e-6)
        assert not torch.allclose(after[1, 9:], before[1, 9:])

    def test_the_loss_is_a_sum_over_trained_targets(self, name: str, index: int) -> None:
        _, model = tiny(name, index)
        model.eval()
        tokens, targets = torch.randint(30, (2, 16)), torch.randint(30, (2, 16))
        parts = [targets.clone() for _ in range(2)]
        parts[0][:, ::2], parts[1][:, 1::2] = -100, -100
        with torch.no_grad():
            total = model(tokens, targets=targets)
            assert total.shape == ()
            assert total.dtype == torch.float32
            torch.testing.assert_close(sum(model(tokens, targets=part) for part in parts), total)
            assert model(tokens, targets=torch.full_like(targets, -100)) == 0

    def test_save_and_load(self, name: str, index: int, tmp_path: Path) -> None:
        config, model = tiny(name, index)
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        other = type(config).model_validate_json(config.model_dump_json()).build()
        other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
        tokens = torch.randint(30, (1, 16))
        assert torch.equal(other.eval()(tokens), model.eval()(tokens))

    def test_the_same_seed_builds_the_same_weights(self, name: str, index: int) -> None:
        first, second = tiny(name, index)[1], tiny(name, index)[1]
        assert all(
            torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
        )


@pytest.mark.parametrize(
    ("name", "index"), [(name, index) for name in INPUTS for index in range(len(INPUTS[name]))]
)
class TestContractOfClassifiers:
    def test_every_parameter_receives_a_gradient(self, name: str, index: int) -> None:
        _, model = tiny(name, index)
        F.cross_entropy(model(torch.randn(16, 3, 4, 4)), torch.arange(16) % 5).backward()
        assert without_gradient(model) == []

    def test_rows_do_not_mix(self, name: str, index: int) -> None:
        config, model = tiny(name, index)
        if not config.loss_is_sum:
            model.eval()
        inputs = torch.randn(6, 3, 4, 4)
        changed = inputs.clone()
        changed[3] += 1
        reseeded = torch.random.get_rng_state()
        before = model(inputs)
        torch.random.set_rng_state(reseeded)
        after = model(changed)
        assert before.shape == (6, 5)
        keep = torch.arange(6) != 3
        torch.testing.assert_close(after[keep], before[keep], rtol=0, atol=1e-6)
        assert not torch.allclose(after[3], before[3])

    def test_save_and_load(self, name: str, index: int, tmp_path: Path) -> None:
        config, model = tiny(name, index)
        save_file(
            {n: t.contiguous() for n, t in model.state_dict().items()},
            tmp_path / "model.safetensors",
        )
        other = type(config).model_validate_json(config.model_dump_json()).build()
        other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
        inputs = torch.randn(2, 3, 4, 4)
        assert torch.equal(other.eval()(inputs), model.eval()(inputs))


@pytest.mark.parametrize(
    ("name", "index"), [(n, i) for n in TOKENS | INPUTS for i in range(len((TOKENS | INPUTS)[n]))]
)
def test_parts_are_made_in_the_order_in_which_they_are_used(name: str, index: int) -> None:
    """Fine-tuning tells by it which layers lie below others."""
    _, model = tiny(name, index)
    used: list[str] = []
    for label, part in model.named_modules():
        for own, _ in list(part.named_parameters(label, recurse=False))[:1] if label else []:
            part.register_forward_hook(lambda module, inputs, output, own=own: used.append(own))
    model.eval()(torch.randint(30, (2, 16)) if name in TOKENS else torch.randn(4, 3, 4, 4))
    found = depths(list(model.state_dict()))
    order = [found[own] for own in dict.fromkeys(used)]
    assert order == sorted(order, reverse=True)
    assert order[-1] == 0


@pytest.mark.slow
def test_the_benchmark_step_is_counted_as_published() -> None:
    config = GPTConfig(vocabulary_size=4096)
    assert config.build().parameter_count() == pytest.approx(12.2e6, rel=0.01)
    assert config.flops_per_token(256) * 16 * 256 == pytest.approx(3.14e11, rel=0.01)
    assert GPTConfig(vocabulary_size=4096, sliding_window=256).flops_per_token(
        256
    ) == config.flops_per_token(256)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 2e-2)]
)
def test_the_chunked_loss_is_the_plain_one(
    dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(200, 16, dtype=dtype, requires_grad=True)
    weight = torch.randn(50, 16, dtype=dtype, requires_grad=True)
    targets = torch.randint(50, (200,)).masked_fill(torch.rand(200) < 0.3, -100)

    def both() -> list[Tensor]:
        total = linear_cross_entropy_sum(hidden, weight, targets)
        return [total, *torch.autograd.grad(total / 7, (hidden, weight))]

    plain = both()
    monkeypatch.setattr(loss, "_CHUNK_BYTES", 64 * 50 * 4)
    chunked = both()
    for found, expected in zip(chunked, plain, strict=True):
        assert found.dtype == expected.dtype
        assert (found - expected).abs().max() <= bound * expected.abs().max()
    losses = linear_cross_entropy(hidden, weight, targets)
    assert losses.shape == (200,)
    assert (losses[targets == -100] == 0).all()
    assert abs(losses.sum() - plain[0]) <= bound * abs(plain[0])
    with torch.no_grad():
        assert abs(linear_cross_entropy_sum(hidden, weight, targets) - plain[0]) <= bound * abs(
            plain[0]
        )
    assert torch.equal(both()[2], chunked[2])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 1.0])
def test_leaving_out_untrained_tokens_changes_nothing(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(1500, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(20, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(20, (1500,)).masked_fill(torch.rand(1500) >= share, -100)

    def both() -> list[Tensor]:
        total = linear_cross_entropy_sum(hidden, weight, targets)
        return [total, *torch.autograd.grad(total, (hidden, weight))]

    shorter = both()
    monkeypatch.setattr(loss, "_MULTIPLE", 2000)
    for found, expected in zip(shorter, both(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
