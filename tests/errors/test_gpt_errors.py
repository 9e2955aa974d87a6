"""What the GPT and decoding say to impossible wishes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from groundup.contracts.processors import TextProcessor
from groundup.core.errors import CheckpointError, DataError, RecipeError
from groundup.core.settings import validate
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.models.gemma import Gemma3Config
from groundup.models.gpt import GPTConfig
from groundup.models.names.huggingface import gpt2, llama
from groundup.models.phi3 import Phi3Config


class Tokenizer(TextProcessor):
    """A text processor of 300 tokens."""

    vocabulary_size, end_id = 300, 0

    def save(self, folder: Path) -> None: ...

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        return []

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        return ""

    def token_bytes(self) -> NDArray[np.int32]:
        return np.ones(300, np.int32)


@pytest.mark.parametrize(
    ("model", "section", "message"),
    [
        (
            Gemma3Config,
            {"heads": 6, "kv_heads": 4},
            "heads 6 is not a multiple of kv_heads 4. Use kv_heads 3 or change",
        ),
        (Gemma3Config, {"head_dim": 33}, "recipe.model.head_dim: got 33; allowed: a multiple of 2"),
        (
            Phi3Config,
            {"width": 130, "heads": 4},
            "width 130 is not a multiple of heads 4. Use width 128 or change",
        ),
        (
            Phi3Config,
            {"width": 16, "heads": 2, "rotary_share": 0.4},
            (
                "rotary_share 0.4 makes 3 of 8 channels rotary, but they turn in pairs. Change it"
                " so that their number is"
            ),
        ),
    ],
)
def test_impossible_shapes_of_gemma_and_phi(
    model: Any, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        validate(model, section, "recipe.model")
    assert message in str(caught.value)
    with pytest.raises(
        RecipeError, match="vocabulary_size: is 0, but no tokenizer has filled it in"
    ):
        model().build()
    with pytest.raises(RecipeError, match="the tokenizer has 300 tokens, but the model 299"):
        model(vocabulary_size=299).complete_from(Tokenizer())


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"width": 130, "heads": 4},
            "recipe.model: width 130 is not a multiple of heads 4. Use width 128 or change heads.",
        ),
        (
            {"heads": 6, "kv_heads": 4},
            (
                "recipe.model: heads 6 is not a multiple of kv_heads 4. Use kv_heads 3 or change"
                " heads."
            ),
        ),
        (
            {"head_dim": 33},
            (
                "recipe.model: head_dim 33 is odd, but rotary positions turn channels in pairs."
                " Use head_dim 34 or positions: learned."
            ),
        ),
        ({"width": 18, "heads": 6}, "head_dim 3 is odd"),
        ({"positions": "learned", "rope_theta": 500.0}, "rope_theta has no effect with positions"),
        ({"layers": 0}, "recipe.model.layers: got 0"),
        (
            {"rope_scaling": {"kind": "linear", "factor": 2.0, "beta_fast": 3.0}},
            "recipe.model.rope_scaling: beta_fast has no effect with kind",
        ),
        (
            {"rope_scaling": {"kind": "llama3", "factor": 2.0, "low_frequency": 5.0}},
            (
                "recipe.model.rope_scaling: low_frequency is not below high_frequency. Exchange or"
                " change them."
            ),
        ),
        (
            {"rope_scaling": {"kind": "yarn", "factor": 2.0, "beta_slow": 50.0}},
            "recipe.model.rope_scaling: beta_slow is above beta_fast. Exchange or change them.",
        ),
        (
            {"positions": "learned", "rope_scaling": {"kind": "linear", "factor": 2.0}},
            "rope_scaling has no effect with positions",
        ),
        ({"lyers": 3}, "did you mean 'layers'"),
        ({"dropout": 1.0}, "recipe.model.dropout: got 1.0"),
    ],
)
def test_impossible_shapes(section: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validate(GPTConfig, section, "recipe.model")
    assert message in str(caught.value)


def test_a_tokenizer_larger_than_the_model() -> None:
    with pytest.raises(
        RecipeError, match=r"vocabulary_size: the tokenizer has 300 tokens, but the model 256\. Use"
    ):
        GPTConfig(vocabulary_size=256).complete_from(Tokenizer())
    assert GPTConfig().complete_from(Tokenizer()).vocabulary_size == 300
    assert GPTConfig(vocabulary_size=512).complete_from(Tokenizer()).vocabulary_size == 512


def test_a_processor_without_tokens_and_an_unknown_vocabulary() -> None:
    class Pixels:
        def save(self, folder: Path) -> None: ...

    with pytest.raises(RecipeError, match="makes no tokens"):
        GPTConfig().complete_from(Pixels())
    with pytest.raises(RecipeError, match="is 0, but no tokenizer has filled it in"):
        GPTConfig().build()


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p"])
def test_sampling_options_without_sampling(name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name} has no effect with temperature 0"):
        validate(DecodingOptions, {"temperature": 0, name: 1}, "recipe.task.decoding")


def test_an_empty_stop_text() -> None:
    with pytest.raises(RecipeError, match="stop holds an empty text"):
        validate(DecodingOptions, {"stop": [""]}, "recipe.task.decoding")


def test_prompts_that_cannot_be_continued() -> None:
    model = GPTConfig(vocabulary_size=9, layers=1, width=8, heads=2, context_length=4).build()
    with pytest.raises(DataError, match="prompt 1: is empty"):
        generate_batch(model, [[1], []], DecodingOptions())
    with pytest.raises(DataError, match="prompt 0: has 5 tokens; the model's context is 4"):
        generate_batch(model, [[1] * 5], DecodingOptions(overflow="stop"))


def test_shapes_that_are_bugs_of_the_caller() -> None:
    model = GPTConfig(vocabulary_size=9, layers=1, width=8, heads=2, context_length=4).build()
    tokens, boundaries = (
        torch.zeros(1, 4, dtype=torch.int64),
        torch.tensor([0, 3], dtype=torch.int32),
    )
    with pytest.raises(
        ValueError, match=r"boundaries must rise from 0 to the number of tokens \(4\)"
    ):
        model(tokens, boundaries=boundaries)
    with pytest.raises(ValueError, match="give boundaries or a cache, not both"):
        model(tokens, boundaries=boundaries, cache=model.new_cache(1, 4))
    with pytest.raises(ValueError, match="position 3 is beyond the cache's 3 slots"):
        model(tokens, cache=model.new_cache(1, 3))


def test_models_of_other_families() -> None:
    with pytest.raises(CheckpointError, match="model_type mamba"):
        llama.config_to_groundup({"model_type": "mamba"})
    with pytest.raises(
        CheckpointError,
        match="rotary scaling longrope; supported: default, linear, dynamic, llama3",
    ):
        llama.config_to_groundup({"model_type": "llama", "rope_scaling": {"rope_type": "longrope"}})
    with pytest.raises(CheckpointError, match="only a part of each head is rotary"):
        llama.config_to_groundup(
            {"model_type": "llama", "rope_parameters": {"partial_rotary_factor": 0.5}}
        )
    with pytest.raises(CheckpointError, match=r"rope_interleaved is True; supported: False"):
        llama.config_to_groundup({"model_type": "llama", "rope_interleaved": True})
    with pytest.raises(
        CheckpointError, match=r"scale_attn_by_inverse_layer_idx is True; supported: False"
    ):
        gpt2.config_to_groundup({"scale_attn_by_inverse_layer_idx": True})
    score = {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}
    with pytest.raises(
        CheckpointError,
        match=r"LlamaForSequenceClassification; supported .* llama: LlamaForCausalLM",
    ):
        llama.config_to_groundup(score)
    with pytest.raises(CheckpointError, match="attention_bias is True, but mlp_bias False"):
        llama.config_to_groundup({"model_type": "llama", "attention_bias": True})
    mixed = {
        "model_type": "qwen3",
        "use_sliding_window": True,
        "layer_types": ["full_attention", "sliding_attention"],
    }
    with pytest.raises(CheckpointError, match="only some layers have a sliding window"):
        llama.config_to_groundup(mixed)
    with pytest.raises(CheckpointError, match="no Hugging Face family has learned"):
        llama.config_to_huggingface(GPTConfig(positions="learned").completed())
    with pytest.raises(CheckpointError, match="activation relu"):
        gpt2.config_to_groundup({"activation_function": "relu"})
    with pytest.raises(CheckpointError, match="GPT-2 has no rotary"):
        gpt2.config_to_huggingface(GPTConfig().completed())
