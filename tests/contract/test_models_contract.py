"""What every registered model keeps: gradients everywhere, rows that do not mix, no look ahead,
weights that reload."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.core.registry import BUILTINS, lookup
from groundup.core.settings import validate
from groundup.models.gpt import GPTConfig
from groundup.nn import logits as output_layer
from groundup.nn import loss
from groundup.nn.loss import linear_cross_entropy, linear_cross_entropy_sum
from groundup.testing import check_model

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
    "fsq_autoencoder": [
        {"patch": 2, "widths": [8], "groups": 4, "levels": [4, 3], "input_shape": [3, 4, 4]},
        {
            **{"patch": 1, "widths": [8, 12, 16], "layers": 2, "groups": 4},
            **{"levels": [2, 5, 3], "input_shape": [3, 4, 4]},
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
    from test_ctc_contract import SPEECH
    from test_detector_contract import DETECTORS
    from test_encoder_decoder_contract import ENCODER_DECODERS
    from test_games_contract import GAMES
    from test_generators_contract import GENERATORS
    from test_recommenders_contract import RECOMMENDERS
    from test_sequence_models_contract import SEQUENCES
    from test_whisper_contract import WHISPER

    here = set(TOKENS) | set(INPUTS) | set(SEQUENCES) | set(ENCODER_DECODERS)
    here |= set(SPEECH) | set(WHISPER) | set(GENERATORS) | set(DETECTORS)
    here |= set(RECOMMENDERS)
    here |= set(GAMES)
    assert set(BUILTINS["model"]) == here


# A bias of the keys shifts all scores of a query alike: its gradient is zero but for rounding.
WITHOUT_GRADIENT = ("key.bias",)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_language_models_keep_their_contract(name: str, index: int) -> None:
    inputs = {"tokens": torch.randint(30, (3, 16))}
    check_model(tiny(name, index)[0], inputs, language=True, untrained=WITHOUT_GRADIENT)


@pytest.mark.parametrize(
    ("name", "index"), [(name, index) for name in INPUTS for index in range(len(INPUTS[name]))]
)
def test_classifiers_keep_their_contract(name: str, index: int) -> None:
    # Not what the tests before leave: with most numbers, codes of few levels are equal by chance.
    torch.manual_seed(4)
    inputs = {"inputs": torch.randn(16, 3, 4, 4)}
    check_model(tiny(name, index)[0], inputs, untrained=WITHOUT_GRADIENT)


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
    monkeypatch.setattr(output_layer, "_CHUNK_BYTES", 64 * 50 * 4)
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
