"""What a user may get wrong in asking for pictures by texts, and what the message says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from picture_runs import captioned_digits, from_captions_run
from tiny_runs import tiny_run

from groundup import api
from groundup.contracts.trained_models import TrainedModel
from groundup.core.errors import DataError, RecipeError
from groundup.core.values import Example
from groundup.models.bert import BERTConfig
from groundup.models.dit import DiTConfig
from groundup.models.text_encoder import complete_text
from groundup.models.unet import UNetConfig
from groundup.processors.captioned_pictures import CaptionedPictures, CaptionedPicturesConfig
from groundup.processors.encoded_texts import EncodedTextsConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.generate_images.task import GenerateImages


def processor() -> CaptionedPictures:
    pictures = {"name": "image", "normalise": "given", "mean": [0.5], "std": [0.5]}
    config = CaptionedPicturesConfig(tokenizer={"name": "characters"}, pictures=pictures)
    return config.fit(lambda: iter(captioned_digits()))


@pytest.mark.parametrize(
    ("task", "section", "problem"),
    [
        ({}, "image", "recipe.processor: reads no captions, which task.condition: text asks"),
        ({"condition": "class"}, None, "recipe.task.condition: is class, but the processor is one"),
        ({"condition": "none"}, None, "recipe.task.condition: is none, but the processor is one"),
    ],
)
def test_conditions_that_the_processor_does_not_have(
    task: dict[str, Any], section: str | None, problem: str, tmp_path: Path
) -> None:
    recipe = from_captions_run(tmp_path)
    recipe["task"] |= task
    recipe["processor"] = section or recipe["processor"]
    with pytest.raises(RecipeError, match=problem):
        api.trainer(recipe, runs=tmp_path)


def test_an_encoder_without_captions(tmp_path: Path) -> None:
    recipe = tiny_run("unet", tmp_path, {"text": {"name": "bert"}})
    problem = "recipe.model.text: is given, but the processor reads no captions that unet could be"
    with pytest.raises(RecipeError, match=problem):
        api.trainer(recipe, runs=tmp_path)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"layers": 2}, r"recipe\.model\.text\.name: is required and missing"),
        (
            {"name": "brt"},
            r"recipe\.model\.text\.name: there is no model 'brt'; did you mean 'bert",
        ),
        ({"name": "bert", "width": 0}, r"recipe\.model\.text\.width"),
        (
            {"name": "bert", "pooling": "mean"},
            r"text\.pooling: is of the head of bert, which an enc",
        ),
        ({"name": "rnn", "outputs": 3}, r"text\.outputs: is of the head of rnn"),
        ({"name": "unet"}, r"recipe\.processor: makes no images, which model unet reads"),
        ({"name": "gpt", "width": 8, "heads": 2}, "makes no tokens, which model gpt reads"),
        ({"name": "bag_of_ngrams"}, r"model\.text\.name: is bag_of_ngrams, which shows no states"),
    ],
)
def test_sections_that_are_no_encoder(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        UNetConfig(widths=(4,), groups=2, head_width=4, text=section).complete_from(
            processor()
        ).build()


def test_models_with_and_without_an_encoder_of_texts() -> None:
    model = DiTConfig(patch=4, width=12, layers=1, input_shape=(1, 8, 8)).build()
    with pytest.raises(
        RecipeError, match=r"recipe[.]model[.]text: DiT reads no captions, by which"
    ):
        GenerateImages(condition="text").check_model(model, processor())
    text = complete_text(None, processor(), "dit")
    model = DiTConfig(patch=4, width=12, layers=1, input_shape=(1, 8, 8), text=text).build()
    with pytest.raises(
        RecipeError, match=r"recipe[.]model[.]text: DiT reads captions, which nothing"
    ):
        GenerateImages().check_model(model, processor())


def test_pictures_without_captions() -> None:
    (first, *_) = captioned_digits(1)
    for target in (None, 7, "  "):
        bare = Example(first.name, first.inputs, target, "digits/1.png")
        with pytest.raises(DataError, match=r"digits/1[.]png: has no caption, but"):
            GenerateImages(condition="text").encode([bare], processor())
        with pytest.raises(DataError, match=r"digits/1[.]png: has no caption, but"):
            CaptionedPicturesConfig().fit(lambda bare=bare: iter([bare]))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"pictures": {"name": "bytes"}},
            r"processor\.pictures\.name: is bytes, which makes no pi",
        ),
        ({"tokenizer": {"name": "image"}}, r"processor\.tokenizer\.name: is image, which reads no"),
    ],
)
def test_sections_of_other_processors(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        CaptionedPicturesConfig(**settings).fit(lambda: iter(captioned_digits()))


def test_prompts_that_cannot_be_asked_for() -> None:
    reader = processor()
    model = UNetConfig(widths=(4,), groups=2, head_width=4).complete_from(reader).build()
    task = GenerateImages(condition="text", caption_dropout=0.0, steps=1)
    with pytest.raises(
        DataError, match=r"prompt: is empty, but .* caption_dropout 0, only with a c"
    ):
        task.predict(model, "", reader)
    with pytest.raises(
        DataError, match=r"guidance: is 2, but .* caption_dropout 0: the model does"
    ):
        task.predict(model, "a one", reader, guidance=2.0)
    with pytest.raises(
        DataError, match=r"has 40 tokens, but the run reads up to 32 of a text\. As"
    ):
        task.predict(model, "a seven" + "!" * 33, reader)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    processor().save(tmp_path)
    (tmp_path / "processor.json").write_text('{"name": "captioned_pictures"}')
    with pytest.raises(DataError, match=r"processor[.]json"):
        CaptionedPicturesConfig.load(tmp_path)
    (tmp_path / "captions" / "processor.json").unlink()
    with pytest.raises(DataError, match=r"captions"):
        CaptionedPicturesConfig.load(tmp_path)


def test_encoders_that_cannot_read_captions(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"tokenizer has no effect with encoder, which has its own"
    ):
        CaptionedPicturesConfig(encoder="runs/x", tokenizer={"name": "bytes"})
    config = CaptionedPicturesConfig(encoder="runs/x")
    text = BERTConfig(
        vocabulary_size=300, layers=1, width=8, heads=2, context_length=16, head="none"
    )
    reader = BytesConfig().fit(lambda: iter([]))
    trained = TrainedModel("runs/x", "classify", text, text.build(), reader)
    with pytest.raises(RecipeError, match=r"max_tokens: is 32, but the encoder reads up to 16 tok"):
        config.fit_with(trained, lambda: iter(captioned_digits(1)))
    other = replace(trained, model=DiTConfig(patch=4, width=12, input_shape=(1, 8, 8)).build())
    with pytest.raises(
        RecipeError, match=r"encoder: runs/x is a run of task classify, which shows"
    ):
        config.fit_with(other, lambda: iter(captioned_digits(1)))
    with pytest.raises(
        RecipeError, match=r"processor\.name: encoded_texts is made by captioned_pic"
    ):
        EncodedTextsConfig().fit(lambda: iter([]))
