"""Every message of pictures as codes, and of captions and pictures as tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_runs import (
    autoencoder_run,
    caption_run,
    captioned_digits,
    picture_tokens,
    trained_autoencoder,
)
from pictures import save
from tiny_runs import tiny_run
from torch import nn

import groundup
from groundup import api
from groundup.contracts.trained_models import TrainedModel
from groundup.core.errors import DataError, RecipeError, RunError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.models.fsq_autoencoder import FSQAutoencoderConfig
from groundup.processors.picture_tokens import PictureTokensConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.autoencode.task import Autoencode
from groundup.tasks.text_and_pictures.task import TextAndPictures
from groundup.tasks.text_and_pictures.writing import draw_pictures


def digits_run(folder: Path, **model: Any) -> dict[str, Any]:
    return tiny_run("fsq_autoencoder", folder, model)


def test_settings_that_do_not_fit_the_pictures(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="widths has 12, which is not a multiple of groups 8"):
        validate(FSQAutoencoderConfig, {"widths": [8, 12]}, "recipe.model")
    with pytest.raises(RecipeError, match="is 3, and 2 stages make 6 pixels one place"):
        api.trainer(digits_run(tmp_path, patch=3), runs=tmp_path)
    with pytest.raises(RecipeError, match=r"is \[3, 8, 8\], but the data has \[1, 8, 8\]"):
        api.trainer(digits_run(tmp_path, input_shape=[3, 8, 8]), runs=tmp_path)
    with pytest.raises(RecipeError, match="input_shape: is null, but no data has filled it in"):
        FSQAutoencoderConfig().build()


def test_what_cannot_be_autoencoded(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Linear makes no codes, which task autoencode learns"):
        Autoencode().check_model(nn.Linear(1, 1), None)
    texts = BytesConfig().fit(lambda: iter(()))
    with pytest.raises(RecipeError, match="makes no pictures, which task autoencode learns from"):
        Autoencode().fit_processor(texts, lambda: iter(()))
    recipe = digits_run(tmp_path)
    recipe["task"]["augmentation"] = {"mixup": 0.4}
    with pytest.raises(RecipeError, match=r"augmentation\.mixup: blends two pictures, but task"):
        api.trainer(recipe, runs=tmp_path / "mixed")


def test_options_of_texts_do_nothing_for_codes() -> None:
    with pytest.raises(DataError, match=r"options\.top_k: has no effect: a picture is drawn from"):
        groundup.load(autoencoder_run())(np.zeros((8, 8)), top_k=3)


def test_a_picture_of_another_size(tmp_path: Path) -> None:
    path = save(tmp_path / "wide.png", np.zeros((8, 9)))
    with pytest.raises(DataError, match=r"wide\.png: .*8 x 9"):
        groundup.load(autoencoder_run())(str(path))
    with pytest.raises(DataError, match=r"wide\.png: .*8 x 9"):
        picture_tokens().encode_pictures([path])


# ------------------------------------------------------------------------- captions and pictures
@pytest.mark.slow
def test_a_run_that_is_no_autoencoder(tmp_path: Path) -> None:
    classifier = tiny_run("mlp", tmp_path)
    run = groundup.train(classifier, {"training.steps": 1}, runs=tmp_path)
    recipe = caption_run(tmp_path)
    recipe["processor"]["autoencoder"] = str(run.folder)
    problem = "is a run of task classify, and no autoencoder of pictures. Name a run of task"
    with pytest.raises(RecipeError, match=problem):
        api.trainer(recipe, runs=tmp_path)
    recipe["processor"]["autoencoder"] = str(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"nowhere: is not a run"):
        api.trainer(recipe, runs=tmp_path)


def test_a_processor_that_is_fitted_without_its_model() -> None:
    config = PictureTokensConfig(autoencoder="runs/codes")
    with pytest.raises(RecipeError, match="is fitted with the model of another run"):
        config.fit(lambda: iter(()))


@pytest.mark.parametrize("caption", [None, " ", 3])
def test_pictures_without_captions(caption: Any) -> None:
    config = PictureTokensConfig(autoencoder="runs/codes", tokenizer={"name": "bytes"})
    trained: TrainedModel = trained_autoencoder()
    examples = [Example("a", np.zeros((8, 8)), caption, "a.png")]
    with pytest.raises(DataError, match=r"a\.png: has no caption, but"):
        config.fit_with(trained, lambda: iter(examples))
    with pytest.raises(DataError, match="captions: a caption is "):
        TextAndPictures().encode(examples, picture_tokens())


def test_what_cannot_learn_captions(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="makes no tokens of pictures and texts"):
        TextAndPictures().fit_processor(BytesConfig().fit(lambda: iter(())), lambda: iter(()))
    recipe = caption_run(tmp_path)
    recipe["model"]["context_length"] = 29
    problem = "is 29, but 24 tokens of a caption and 4 of a picture need 30. Set it to 30"
    with pytest.raises(RecipeError, match=problem):
        api.trainer(recipe, runs=tmp_path)
    with pytest.raises(RecipeError, match="FSQAutoencoder is no language model"):
        TextAndPictures().check_model(trained_autoencoder().model, picture_tokens())


def test_what_was_not_learned_is_not_predicted() -> None:
    processor, model = picture_tokens(), trained_autoencoder().model
    with pytest.raises(
        DataError, match=r"has learned captions from pictures alone\. Give a picture"
    ):
        TextAndPictures(directions="to_caption").predict(model, "a nine", processor)
    digit = captioned_digits(1)[0].inputs
    with pytest.raises(
        DataError, match=r"has learned pictures from captions alone\. Give a caption"
    ):
        TextAndPictures(directions="to_picture").predict(model, digit, processor)
    with pytest.raises(DataError, match=r"hat\.png: there is no such picture; a caption ends"):
        TextAndPictures().predict(model, "hat.png", processor)


@pytest.mark.parametrize("options", [{"beams": 3}, {"stop": ("a",)}, {"max_new_tokens": 5}])
def test_options_of_texts_are_refused_for_pictures(options: dict[str, Any]) -> None:
    (name,) = options
    model = trained_autoencoder().model
    with pytest.raises(DataError, match=rf"options\.{name}: is for texts: a picture has always"):
        draw_pictures(model, [[0]], picture_tokens(), options)
