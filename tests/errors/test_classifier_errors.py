"""Every message of arrays, pictures, classes and their models."""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.core.errors import DataError, MissingExtraError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.reading.idx import read_idx
from groundup.data.sources import arrays
from groundup.data.sources.arrays import Arrays
from groundup.metrics.classification import evaluate_classes, evaluate_labels
from groundup.models.cnn import CNNConfig
from groundup.models.mlp import MLPConfig
from groundup.processors.class_targets import MultiLabel, SingleLabel
from groundup.processors.image import ImageConfig, ImageProcessor
from groundup.processors.labelled import Labelled, LabelledConfig
from groundup.processors.targets import RegressionTargets
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.classify.task import Classify

TEXT = BytesConfig().fit(lambda: iter(()))
PICTURES = Labelled(ImageProcessor((1, 8, 8), None, [0.0], [1.0]), SingleLabel(["a", "b"]), 0)


def read(path: Path, **settings: Any) -> None:
    Arrays(path=str(path), **settings).examples("train", path.parent)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "nowhere.npz")
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"is no .npz; allowed"):
        read(tmp_path / "bad.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object), y=np.zeros(1))
    with pytest.raises(DataError, match=r"array 'x' holds Python objects.*only pickle can read"):
        read(tmp_path / "objects.npz")
    np.savez(tmp_path / "names.npz", x1=np.zeros((2, 2)), y=np.zeros(2))
    with pytest.raises(DataError, match=r"there is no array 'x'; .*arrays: x1, y"):
        read(tmp_path / "names.npz")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "readme.txt").touch()
    with pytest.raises(
        DataError, match=r"has no file train\*images\*, as MNIST's layout has it; there: readme.txt"
    ):
        read(tmp_path / "folder")
    (tmp_path / "x.idx").write_bytes(b"\0\0\x08\x01\0\0\0\0")
    with pytest.raises(DataError, match="nothing says where the labels are"):
        read(tmp_path / "x.idx")


def test_damaged_idx_files(tmp_path: Path) -> None:
    path = tmp_path / "x.idx"
    path.write_bytes(b"PNG and so on")
    with pytest.raises(DataError, match="is not an idx file"):
        read_idx(path)
    path.write_bytes(b"\0\0\x08\x01\0\0\0\x05abc")
    with pytest.raises(
        DataError, match=r"its header states 5 numbers, 5 bytes, and 3 bytes follow"
    ):
        read_idx(path)
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"abc")[:-4])
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "x.gz")


def test_inputs_and_labels_that_do_not_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2, 2)), y=np.zeros(2))
    with pytest.raises(
        DataError, match=r"3 inputs and labels of shape \(2,\); allowed: one label an input"
    ):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros((0, 2, 2)), y=np.zeros(0))
    with pytest.raises(DataError, match="there are no examples"):
        read(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"labels_path": "a"}, "labels_path has no effect without path"),
        ({"test": "a"}, "test has no effect without path"),
        (
            {"path": "a", "test_labels_path": "b"},
            "test_labels_path has no effect without test",
        ),
    ],
)
def test_settings_without_effect(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(Arrays, section, "recipe.data")


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(arrays.importlib.util, "find_spec", lambda name: None)
    arrays._read_digits.cache_clear()
    arrays._splits_of.cache_clear()
    with pytest.raises(MissingExtraError, match=r"groundup\[classic\]"):
        Arrays().examples("train", tmp_path)


def test_pictures_that_do_not_fit() -> None:
    def fit(*pictures: Any, **settings: Any) -> None:
        ImageConfig(**settings).fit(lambda: iter([Example("a", p, 0, "row 1") for p in pictures]))

    with pytest.raises(DataError, match="there are no training examples"):
        fit()
    with pytest.raises(DataError, match=r"row 1: has shape \(5,\); allowed: \(height, width\)"):
        fit(np.zeros(5))
    with pytest.raises(
        DataError, match="row 1: has 3 x 2 pixels and 1 channels, but the others 2 x 2 and 1"
    ):
        fit(np.zeros((2, 2)), np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"the pictures have 8 x 8 pixels, more than 7 x 9"):
        fit(np.zeros((8, 8)), pad_to=(7, 9))
    with pytest.raises(
        DataError, match=r"label 'c' is none of the training split's; .*known: a, b"
    ):
        PICTURES.targets.encode(["a", "c"])


@pytest.mark.parametrize(
    ("first", "second", "remedy", "settings"),
    [
        ((2, 2), (2, 2, 3), "Set processor.channels: 3, or 1 for grey, or", {"channels": 3}),
        ((2, 2, 3), (2, 2), "Set processor.channels: 3, or 1 for grey, or", {"channels": 1}),
        ((2, 3), (4, 4), r"Set processor.size: [2, 3], or", {"size": (2, 3)}),
        (
            (2, 3),
            (4, 4, 3),
            r"Set processor.size: [2, 3] and processor.channels: 3, or",
            {"size": (2, 3), "channels": 3},
        ),
    ],
)
def test_what_is_said_of_pictures_that_differ_helps(
    first: tuple[int, ...], second: tuple[int, ...], remedy: str, settings: dict[str, Any]
) -> None:
    examples = [Example("a", np.ones(shape), 0) for shape in (first, second)]
    with pytest.raises(DataError, match=re.escape(f"{remedy} give pictures of one kind")):
        ImageConfig().fit(lambda: iter(examples))
    assert ImageConfig(**settings).fit(lambda: iter(examples))


def test_a_damaged_image_processor(tmp_path: Path) -> None:
    (tmp_path / "processor.json").write_text('{"name": "image", "shape": [1, 2]}')
    with pytest.raises(DataError, match="is damaged: ValueError"):
        ImageProcessor.load(tmp_path)


def test_models_that_do_not_fit_the_data() -> None:
    for config in (MLPConfig(), CNNConfig()):
        with pytest.raises(RecipeError, match=r"recipe.processor: makes no"):
            config.complete_from(TEXT)
        with pytest.raises(RecipeError, match="no data has filled it in"):
            config.build()
    with pytest.raises(
        RecipeError, match=r"recipe.model.inputs: is 65, but the data has 64. Use 0"
    ):
        MLPConfig(inputs=65).complete_from(PICTURES)
    with pytest.raises(
        RecipeError, match=r"recipe.model.input_shape: is \[3, 8, 8\], but the data has \[1, 8, 8\]"
    ):
        CNNConfig(input_shape=(3, 8, 8)).complete_from(PICTURES)
    with pytest.raises(RecipeError, match="nothing is left of 8 x 8 pixels after block 2"):
        CNNConfig(channels=(4, 4, 4)).complete_from(PICTURES)


def test_labels_and_numbers_that_cannot_be_learned(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="every training example has the label 'a'; a classifier needs two classes"
    ):
        SingleLabel.fit(["a", "a"])
    with pytest.raises(DataError, match="no training example has any; a classifier needs"):
        SingleLabel.fit([])
    with pytest.raises(DataError, match="an example has no label"):
        SingleLabel.fit(["a", None])
    with pytest.raises(DataError, match="no training example has any"):
        MultiLabel.fit([[], ""])
    with pytest.raises(DataError, match="there are no training examples"):
        RegressionTargets.fit([])
    with pytest.raises(DataError, match="target 'much' of example 1 is no finite number"):
        RegressionTargets.fit([1.0, "much"])
    with pytest.raises(DataError, match="target nan of example 0 is no finite number"):
        RegressionTargets([0.0], [1.0]).encode([float("nan")])
    with pytest.raises(RecipeError, match="labelled is made by tasks"):
        LabelledConfig().fit(lambda: iter(()))
    PICTURES.save(tmp_path)
    (tmp_path / "processor.json").write_text('{"name": "labelled", "targets": {"kind": "class"}}')
    with pytest.raises(DataError, match="is damaged: KeyError"):
        LabelledConfig.load(tmp_path)


def test_weights_where_they_have_no_effect() -> None:
    with pytest.raises(RecipeError, match="class_weights has no effect with labels"):
        validate(Classify, {"labels": "multi_label", "class_weights": "balanced"}, "recipe.task")
    with pytest.raises(RecipeError, match="effective_beta has no effect with class_weights"):
        validate(Classify, {"effective_beta": 0.9}, "recipe.task")


def test_an_order_that_does_not_fit_the_classes() -> None:
    with pytest.raises(
        DataError,
        match=r"recipe.task.order: lacks the class 'mid' of the training data; it has a, b",
    ):
        SingleLabel.fit_ordered(["mid", "a", "b"], ["a", "b"])
    with pytest.raises(
        DataError, match=r"names 'hihg', which no training example is; did you mean 'high'\? there:"
    ):
        SingleLabel.fit_ordered(["low", "high"], ["low", "hihg", "high"])
    for label in ("low", "nan", "inf"):
        with pytest.raises(
            DataError,
            match=rf"is null, which orders numbers by size, but the class '{label}' is no",
        ):
            SingleLabel.fit_ordered([1, 2, label], None)
    with pytest.raises(
        DataError, match=r"is null, but the classes '01' and '1' are equal. Set order:"
    ):
        SingleLabel.fit_ordered(["1", "01", "2"], None)
    with pytest.raises(
        RecipeError, match=r"recipe.task.order: names 'a' twice. Give each class one place"
    ):
        validate(Classify, {"labels": "ordinal", "order": ["a", "b", "a"]}, "recipe.task")
    with pytest.raises(RecipeError, match=r"recipe.task.order: names '1' twice"):
        validate(Classify, {"labels": "ordinal", "order": [1, "1"]}, "recipe.task")
    with pytest.raises(
        RecipeError, match=r"recipe.task.order: got \[1\]; allowed: .*at least 2 items"
    ):
        validate(Classify, {"labels": "ordinal", "order": [1]}, "recipe.task")


@pytest.mark.parametrize("labels", ["single", "multi_label"])
@pytest.mark.parametrize("section", [{"order": ["a", "b"]}, {"ordinal_smoothing": 3.0}])
def test_an_order_where_it_has_no_effect(labels: str, section: dict[str, Any]) -> None:
    with pytest.raises(
        RecipeError,
        match=r"ord\w* has no effect with labels: .*it applies when labels is .ordinal",
    ):
        validate(Classify, {"labels": labels, **section}, "recipe.task")


def test_judging_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for judging, true in (
        (evaluate_classes, np.zeros(2, np.int64)),
        (evaluate_labels, np.zeros((2, 2), np.int64)),
    ):
        with pytest.raises(MissingExtraError, match=r"groundup\[classic\]"):
            judging(np.full((2, 2), 0.5), true)
