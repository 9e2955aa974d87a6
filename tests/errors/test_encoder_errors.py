"""What is said about encoders that cannot be built, read, trained or asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.core.errors import CheckpointError, DataError, RecipeError
from groundup.core.settings import validate
from groundup.models.bert import BERTConfig
from groundup.processors.class_targets import SingleLabel
from groundup.processors.labelled import Labelled
from groundup.processors.sequences import FramesProcessor
from groundup.processors.text.bpe import BPEConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.masked_lm.task import MaskedLanguageModeling

BYTES = BytesConfig().fit(lambda: iter(()))
TINY = {"layers": 1, "width": 8, "heads": 2, "context_length": 8, "vocabulary_size": 300}
LABELLED = Labelled(BYTES, SingleLabel.fit(["a", "b"]), 8)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"width": 9}, "width 9 is not a multiple of heads 2. Use width 8 or change heads"),
        ({"padding_id": 300}, "padding_id 300 is no token of a vocabulary of 300. Use at most 299"),
        ({"head": "masked", "pooling": "mean"}, 'pooling has no effect with head: "masked"'),
        ({"head": "masked", "pooler": "relu"}, 'pooler has no effect with head: "masked"'),
        ({"head": "none", "outputs": 2}, 'outputs has no effect with head: "none"'),
    ],
)
def test_settings(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validate(BERTConfig, TINY | settings, "recipe.model")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "processor", "expected"),
    [
        (
            {},
            FramesProcessor([0.0], [1.0], None),
            "recipe.processor: makes no tokens, which model bert reads.",
        ),
        (
            {"vocabulary_size": 9},
            BYTES,
            "recipe.model.vocabulary_size: the tokenizer has 262 tokens, but the model 9.",
        ),
        (
            {"context_length": 7},
            LABELLED,
            "recipe.model.context_length: is 7, but the task reads up to 8 tokens.",
        ),
        (
            {"head": "masked"},
            LABELLED,
            "recipe.model.head: is masked with 0 outputs, but the task of this recipe has t",
        ),
        (
            {"outputs": 3},
            BYTES,
            "recipe.model.head: is auto with 3 outputs, but the task of this recipe has no targets",
        ),
        ({"outputs": 3}, LABELLED, "recipe.model.outputs: is 3, but the data has 2."),
    ],
)
def test_data_that_does_not_fit(settings: dict[str, Any], processor: Any, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        BERTConfig(**TINY | settings).complete_from(processor)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"vocabulary_size": 0},
            "recipe.model.vocabulary_size: is 0, but no tokenizer has filled it in.",
        ),
        ({"head": "tokens"}, "recipe.model.outputs: is 0, but no data has filled it in."),
    ],
)
def test_sizes_that_are_still_open(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        BERTConfig(**TINY | settings).build()
    assert str(caught.value).startswith(expected)


def test_a_sequence_beyond_the_positions() -> None:
    with pytest.raises(
        DataError,
        match=r"inputs: a sequence of 9; positions end at 8\. Cut the texts: task\.max_tokens",
    ):
        BERTConfig(**TINY).build()(torch.zeros(1, 9, dtype=torch.int64))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"model_type": "electra"},
            "model_type electra is no encoder that is built here; known: bert, roberta, distil",
        ),
        (
            {"model_type": "bert", "architectures": ["BertForMultipleChoice"]},
            "architecture BertForMultipleChoice; supp",
        ),
        ({"model_type": "bert", "is_decoder": True}, "is_decoder is True; supported: False"),
        (
            {"model_type": "distilbert", "activation": "relu"},
            "activation relu; known: gelu, gelu_new, gelu_pytorch_tanh",
        ),
    ],
)
def test_configs_of_theirs(config: dict[str, Any], expected: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        BERTConfig.from_huggingface(config)
    assert str(caught.value).startswith(f"config.json: {expected}")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"token_types": 0, "norm_eps": 1e-5},
            "no token types with norm_eps 1e-05 and position_offset 0",
        ),
        ({"position_offset": 2}, "position_offset 2 with padding_id None"),
        ({"outputs": 2, "pooling": "mean"}, "labels read with pooling mean and pooler tanh"),
        ({"head": "none", "pooler": "relu"}, "pooler relu without labels"),
    ],
)
def test_shapes_that_they_have_not(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        BERTConfig(**TINY | settings).to_huggingface({})
    assert str(caught.value).startswith(f"model: no Hugging Face family has {expected}.")


def test_weights_that_lack_a_part() -> None:
    config = BERTConfig(**TINY)
    theirs = config.to_huggingface(config.build().state_dict())[1]
    theirs.pop("cls.predictions.transform.dense.weight")
    with pytest.raises(
        CheckpointError,
        match=r"tensor cls\.predictions\.transform\.dense\.weight \[8, 8\] is missing",
    ):
        config.weights_from_huggingface(theirs)
    theirs["bert.what"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"no place for bert\.what"):
        config.weights_from_huggingface(theirs)


def test_hiding_tokens() -> None:
    with pytest.raises(
        RecipeError,
        match=r"recipe\.processor: has no token that stands for a hidden one, such as \[MASK\]",
    ):
        MaskedLanguageModeling().fit_processor(BYTES, lambda: iter(()))
    with pytest.raises(
        RecipeError, match=r"masked 0\.8 and replaced 0\.3 are more than 1\. Lower one of them"
    ):
        validate(MaskedLanguageModeling, {"replaced": 0.3}, "recipe.task")
    with pytest.raises(
        RecipeError, match=r"vocab_size is 262, and encoder: true needs 266\. Use at least 266"
    ):
        validate(BPEConfig, {"vocab_size": 262, "encoder": True}, "recipe.processor")
    processor = BPEConfig(vocab_size=270, encoder=True).fit(lambda: iter(["some text"]))
    model = BERTConfig(**TINY).build()
    with pytest.raises(
        DataError,
        match=r"prompt: has no \[MASK\]: 'some text'\. Put \[MASK\] where a token is to be",
    ):
        MaskedLanguageModeling().predict(model, "some text", processor)


def test_a_saved_tokenizer_whose_encoder_is_damaged(tmp_path: Path) -> None:
    processor = BPEConfig(vocab_size=270, encoder=True).fit(lambda: iter(["some text"]))
    processor.save(tmp_path)
    path = tmp_path / "processor.json"
    path.write_text(path.read_text().replace('"mask"', '"musk"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"processor\.json: is damaged: TypeError"):
        BPEConfig.load(tmp_path)
