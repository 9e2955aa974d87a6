"""What a user reads where texts cannot be written about, searched for, or weights not read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from groundup.core.errors import CheckpointError, DataError
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.models.encoder_decoder import EncoderDecoderConfig
from groundup.models.gpt import GPTConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.shared.text_generation import write, write_stream
from groundup.tasks.text_to_text.frames import Frame
from groundup.tasks.text_to_text.rows import encode_texts

BEAMS = {"temperature": 0.0, "beams": 2}


class Program:
    """Another program that decodes."""

    config = GPTConfig(vocabulary_size=9)

    def generate(self, *given: Any) -> Iterator[list[int | None]]:
        raise AssertionError("it was asked")


@pytest.mark.parametrize(
    ("options", "name"),
    [(BEAMS, "beams"), ({"min_new_tokens": 2}, "min_new_tokens"), ({"no_repeat_ngram": 2}, "no_")],
)
def test_what_another_engine_cannot_do(options: dict[str, Any], name: str) -> None:
    message = rf"options\.{name}.*: is nothing that this engine can do"
    with pytest.raises(DataError, match=message):
        generate_batch(Program(), [[1]], DecodingOptions(**options))


def test_one_text_and_no_stream_of_beams() -> None:
    model: Any = GPTConfig(vocabulary_size=300, layers=1, width=8, heads=2).build()
    tokenizer: Any = BytesConfig().fit(lambda: iter(()))
    several = DecodingOptions(**BEAMS, n_best=2)
    with pytest.raises(DataError, match=r"options\.n_best: is 2, but this task gives one text"):
        write(model, [[1]], tokenizer, several, ())
    with pytest.raises(DataError, match=r"options\.beams: is 2, but tokens are shown as they are"):
        list(write_stream(model, [1], tokenizer, DecodingOptions(**BEAMS), ()))


def test_no_room_for_a_text() -> None:
    tokenizer: Any = BytesConfig().fit(lambda: iter(()))
    message = r"recipe\.task\.max_source_tokens: is 1, but 1 tokens go around every text"
    with pytest.raises(DataError, match=message):
        encode_texts(["a"], tokenizer, 1, "source", Frame([], [tokenizer.end_id]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "t5", "architectures": ["T5EncoderModel"]},
            "architecture T5EncoderModel; supported for model_type t5: T5ForConditionalGeneration",
        ),
        ({"model_type": "t5", "feed_forward_proj": "gated-tanh"}, "feed_forward_proj gated-tanh"),
        ({"model_type": "bart", "activation_function": "tanh"}, "activation_function tanh; known"),
        (
            {"model_type": "marian", "decoder_attention_heads": 8},
            "encoder_attention_heads is 16, but decoder_attention_heads 8",
        ),
        (
            {"model_type": "bart", "share_encoder_decoder_embeddings": False},
            "share_encoder_decoder_embeddings is False; supported: True",
        ),
    ],
)
def test_models_with_parts_that_are_not_built(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        EncoderDecoderConfig.from_huggingface(config)


def test_a_shape_without_a_place_in_transformers() -> None:
    config = EncoderDecoderConfig(vocabulary_size=9, width=8, heads=2, layers=1)
    with pytest.raises(
        CheckpointError,
        match=r"neither T5 nor BART nor Marian has these parts; T5, the nearest, has"
        r" positions: relative, attention_scale: 1\.0\. Train one with",
    ):
        config.to_huggingface(config.build().state_dict())
    marian: dict[str, Any] = {
        "positions": "sinusoidal",
        "norm": "layernorm",
        "norm_placement": "post",
        "activation": "silu",
        "bias": "all",
        "embedding_scale": True,
    }
    config = EncoderDecoderConfig(vocabulary_size=9, width=8, heads=2, layers=1, **marian)
    with pytest.raises(
        CheckpointError, match=r"Marian, the nearest, has norm_eps: 1e-05, output_bias: true\."
    ):
        config.to_huggingface(config.build().state_dict())
