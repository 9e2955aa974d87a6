"""Every message of the classifiers of pictures and sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import InputProcessor
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Batch
from groundup.models.bag_of_ngrams import BagOfNGramsConfig
from groundup.models.convnext import ConvNeXtConfig
from groundup.models.resnet import ResNetConfig
from groundup.models.rnn import RNNConfig
from groundup.models.transformer_classifier import TransformerClassifierConfig
from groundup.models.vit import ViTConfig
from groundup.processors.class_targets import SingleLabel
from groundup.processors.image import ImageProcessor
from groundup.processors.labelled import Labelled
from groundup.processors.text.bytes import BytesConfig


class Frames(InputProcessor):
    """Frames of four numbers, as a processor of sound gives."""

    input_shape = (0, 4)

    def encode_inputs(self, inputs: Any) -> Batch:
        return {"inputs": torch.zeros(len(inputs), 3, 4), "lengths": torch.full((len(inputs),), 3)}

    def save(self, folder: Path) -> None: ...


TARGETS = SingleLabel(["a", "b"])
BYTES = BytesConfig().fit(lambda: iter(()))
PICTURES = Labelled(ImageProcessor((1, 8, 8), None, [0.0], [1.0]), TARGETS, 0)
TEXTS, FRAMES = Labelled(BYTES, TARGETS, 64), Labelled(Frames(), TARGETS, 64)


@pytest.mark.parametrize(
    "config", [ViTConfig(), ResNetConfig(), ConvNeXtConfig()], ids=lambda c: type(c).__name__
)
def test_models_of_pictures(config: ModelConfig) -> None:
    for processor in (BYTES, TEXTS, FRAMES):
        with pytest.raises(
            RecipeError, match=r"recipe.processor: makes no images, which model \w+ reads"
        ):
            config.complete_from(processor)
    with pytest.raises(RecipeError, match="input_shape is null, but no data has filled it in"):
        config.build()
    other = config.model_copy(update={"input_shape": (1, 8, 9)})
    with pytest.raises(
        RecipeError, match=r"recipe.model.input_shape: is \[1, 8, 9\], but the data has \[1, 8, 8\]"
    ):
        other.complete_from(PICTURES)
    with pytest.raises(RecipeError, match=r"recipe.model.outputs: is 3, but the data has 2. Use 0"):
        config.model_copy(update={"outputs": 3, "patch": 1}).complete_from(PICTURES)


def test_pictures_of_other_sizes_than_the_layers_need() -> None:
    with pytest.raises(
        RecipeError, match=r"recipe.model.patch: is 3, which divides not both .* Use a divisor of 8"
    ):
        ViTConfig(patch=3).complete_from(PICTURES)
    with pytest.raises(RecipeError, match="nothing is left of 8 x 8 pixels in stage 3"):
        ConvNeXtConfig().complete_from(PICTURES)


@pytest.mark.parametrize(
    "config", [RNNConfig(), TransformerClassifierConfig()], ids=lambda c: type(c).__name__
)
def test_models_of_sequences(config: ModelConfig) -> None:
    for processor in (BYTES, PICTURES):
        with pytest.raises(
            RecipeError, match=r"recipe.processor: makes neither tokens nor frames, which model \w+"
        ):
            config.complete_from(processor)
    with pytest.raises(RecipeError, match="are 0, but no data has filled them in"):
        config.build()
    for processor, setting, size, found in (
        (TEXTS, "vocabulary_size", 20, BYTES.vocabulary_size),
        (TEXTS, "frame_width", 4, 0),
        (FRAMES, "frame_width", 3, 4),
        (FRAMES, "vocabulary_size", 20, 0),
        (TEXTS, "outputs", 5, 2),
    ):
        changed = config.model_copy(update={setting: size})
        with pytest.raises(
            RecipeError, match=f"recipe.model.{setting}: is {size}, but the data has {found}. Use 0"
        ):
            changed.complete_from(processor)


def test_sequences_longer_than_the_context() -> None:
    with pytest.raises(
        RecipeError,
        match=r"context_length: is 32, but the task reads up to 64 tokens. Set task.max_",
    ):
        TransformerClassifierConfig(context_length=32).complete_from(TEXTS)
    model = (
        TransformerClassifierConfig(positions="learned", context_length=5)
        .complete_from(FRAMES)
        .build()
    )
    assert model(inputs=torch.zeros(2, 5, 4)).shape == (2, 2)
    with pytest.raises(
        DataError,
        match=r"inputs: a sequence of 6; learned positions end at 5. Raise model.context_le",
    ):
        model(inputs=torch.zeros(2, 6, 4))


@pytest.mark.parametrize(
    ("cls", "section", "problem"),
    [
        (
            ViTConfig,
            {"width": 10},
            "width 10 is not a multiple of heads 3. Use width 9 or change heads",
        ),
        (
            ConvNeXtConfig,
            {"layers": [1]},
            "layers has 1 stages and widths 4. Give both as many numbers",
        ),
        (
            ConvNeXtConfig,
            {"layers": [1, 0, 1, 1]},
            r"recipe.model.layers.1: got 0; allowed: greater than or equal to 1",
        ),
        (ResNetConfig, {"layers": []}, r"recipe.model.layers: got \[\]; allowed"),
        (ResNetConfig, {"stem_pool": True}, 'stem_pool has no effect with stem: "imagenet"'),
        (RNNConfig, {"activation": "relu"}, 'activation has no effect with cell: "lstm"'),
        (
            TransformerClassifierConfig,
            {"width": 30},
            "width 30 is not a multiple of heads 4. Use width 28 or change",
        ),
        (
            TransformerClassifierConfig,
            {"kv_heads": 3},
            "heads 4 is not a multiple of kv_heads 3. Use kv_heads 2 or",
        ),
        (
            TransformerClassifierConfig,
            {"sliding_window": 3},
            "sliding_window has no effect with causal: false",
        ),
        (
            TransformerClassifierConfig,
            {"causal": True, "pooling": "class"},
            (
                "pooling: class has no effect with causal: true, .* itself. Use pooling: last, or"
                " causal: false"
            ),
        ),
    ],
)
def test_settings_that_cannot_mean_anything(
    cls: Any, section: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(cls, section, "recipe.model")


def test_bags_of_ngrams() -> None:
    with pytest.raises(
        RecipeError, match=r"recipe.model.ngrams: is 2, but the data has frames, no tokens. Use 0"
    ):
        TransformerClassifierConfig(ngrams=2).complete_from(FRAMES)
    config = BagOfNGramsConfig()
    for processor in (BYTES, FRAMES, PICTURES):
        with pytest.raises(
            RecipeError, match=r"recipe.processor: makes no tokens, which model bag_of_ngrams reads"
        ):
            config.complete_from(processor)
    with pytest.raises(
        RecipeError, match="vocabulary_size or outputs is 0, but no data has filled it in"
    ):
        config.build()
    with pytest.raises(RecipeError, match=r"recipe.model.outputs: is 3, but the data has 2. Use 0"):
        config.model_copy(update={"outputs": 3}).complete_from(TEXTS)
    assert config.complete_from(TEXTS).vocabulary_size == BYTES.vocabulary_size
    with pytest.raises(
        RecipeError, match=r"dropout has no effect with width 0: .* Remove one of them"
    ):
        validate(BagOfNGramsConfig, {"width": 0, "dropout": 0.1}, "recipe.model")
    validate(BagOfNGramsConfig, {"width": 0}, "recipe.model")
