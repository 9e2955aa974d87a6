"""Every message of data sets of the hub: what cannot be reached, told apart, or read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hub import DIGITS, datasets, digit_columns, digits_dataset, own_cache, write_dataset

from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.reading import hub as library
from groundup.data.sources.audio import Audio
from groundup.data.sources.images import Images
from groundup.data.sources.labelled_text import LabelledText
from groundup.data.sources.table import TableSource
from groundup.media import images
from groundup.media.images import read_picture

pytestmark = [pytest.mark.usefixtures("own_cache"), pytest.mark.xdist_group("datasets")]
__all__ = ["own_cache"]


def problem_of(source: Any, split: str = "train") -> str:
    with pytest.raises((DataError, RecipeError)) as caught:
        source.examples(split, Path(source.dataset).parent)
    return str(caught.value)


def test_a_name_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError) as caught:
        Images(dataset="some/pictures").examples("train", tmp_path)
    text = str(caught.value)
    assert text.startswith(
        "data set some/pictures (subset none, revision newest): cannot be loaded: Couldn't reach"
    )
    assert (
        "HF_HUB_OFFLINE is set: only what was read before is there; unset it. Or download the data"
        " set elsewhere" in text
    )
    assert "give its folder: dataset: ./folder" in text
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(
        DataError, match=r"Check the name and the network; .* Or download .* dataset: \./folder"
    ):
        TableSource(dataset="some/table", target="y").examples("train", tmp_path)
    with pytest.raises(DataError, match=r"data set \./nowhere: no such folder. Correct the path"):
        Images(dataset="./nowhere").splits()


@pytest.mark.slow
def test_splits_and_subsets_that_do_not_exist(tmp_path: Path) -> None:
    folder = digits_dataset(tmp_path / "digits", {"train": 40, "validation": 20})
    assert "split nope" in (text := problem_of(Images(dataset=folder, split="nope")))
    assert 'cannot be loaded: Unknown split "nope"' in text
    assert "cannot be loaded: BuilderConfig 'small' not found" in problem_of(
        Images(dataset=folder, subset="small")
    )
    for name, value in (("fraction", 0.3), ("seed", 1)):
        found = problem_of(Images(dataset=folder, **{name: value}))
        assert found.startswith(f"recipe.data.{name}: has no effect: {folder} has a split of its")
    train, others = digit_columns(0, 9), digit_columns(10, 60)
    # other pictures of the same classes: copies of what is held out are no training pictures
    known = [n for n, label in enumerate(others["label"]) if label in train["label"]][:5]
    assert "class '4' is only in the test split" in problem_of(
        Images(
            dataset=write_dataset(
                tmp_path / "other",
                {
                    "train": train,
                    "validation": {name: [own[n] for n in known] for name, own in others.items()},
                    "test": digit_columns(9, 10),
                },
                {"image": datasets.Image(), "label": datasets.ClassLabel(names=DIGITS)},
            )
        )
    )


def test_columns_that_cannot_be_told(tmp_path: Path) -> None:
    columns = digit_columns(0, 20)
    numbers = columns["label"]
    splits = {
        "train": {
            "a": columns["image"],
            "b": columns["image"],
            "x": numbers,
            "y": numbers,
            "t": ["t"] * 20,
        }
    }
    features = {
        "a": datasets.Image(),
        "b": datasets.Image(),
        "x": datasets.ClassLabel(names=DIGITS),
        "y": datasets.ClassLabel(names=DIGITS),
        "t": datasets.Value("string"),
    }
    folder = write_dataset(tmp_path / "d", splits, features)
    assert (
        "which column holds the image is not clear; it may be a, b; columns: a (image), b"
        " (image), x (class), y (class), t (text). Name it as data.image_column"
        in problem_of(Images(dataset=folder))
    )
    label = problem_of(Images(dataset=folder, image_column="a"))
    assert "which column holds the label is not clear; it may be x, y, t" in label
    missing = problem_of(Images(dataset=folder, image_column="c", label_column="x"))
    assert "there is no column 'c'; " in missing
    assert "columns: a, b, x, y, t. Correct data.image_column" in missing
    assert "Correct data.label_column" in problem_of(
        Images(dataset=folder, image_column="a", label_column="z")
    )
    other = problem_of(Images(dataset=folder, image_column="x", label_column="y"))
    assert (
        "column 'x' holds class values; allowed: image, or bytes of files. Name another"
        " data.image_column" in other
    )
    nested = problem_of(Images(dataset=folder, image_column="a", label_column="b"))
    assert (
        "column 'b' holds image values; allowed: classes, text or numbers. Name another"
        " data.label_column" in nested
    )
    assert "no column holds audio files; columns: a (image)" in problem_of(
        Audio(dataset=folder, label_column="x")
    )
    assert "Correct data.text_column" in problem_of(
        LabelledText(dataset=folder, text_column="z", label_column="x")
    )
    assert "column 'a' holds dict" in problem_of(TableSource(dataset=folder, target="x"))
    lacking = problem_of(TableSource(dataset=folder, target="xx"))
    assert lacking.startswith(f"{folder}: there is no column 'xx'; did you mean 'x'")
    features = {
        "one": datasets.Value("string"),
        "two": datasets.Value("string"),
        "label": datasets.ClassLabel(names=DIGITS),
    }
    folder = write_dataset(
        tmp_path / "t", {"train": {"one": ["a"], "two": ["b"], "label": [1]}}, features
    )
    assert "which column holds the text is not clear; it may be one, two" in problem_of(
        LabelledText(dataset=folder)
    )


@pytest.mark.slow
def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    columns = digit_columns(0, 60)
    columns["image"][2] = {"bytes": b"no picture", "path": None}
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=DIGITS)}
    folder = write_dataset(tmp_path / "d", {"train": columns}, features)
    text = problem_of(Images(dataset=folder))
    assert text.startswith(
        f"data set {folder} (subset none, split train, revision newest) row 3: is no readable"
    )
    assert "on_unreadable: skip" in text
    columns["label"][4] = -1
    folder = write_dataset(tmp_path / "e", {"train": columns}, features)
    unlabelled = problem_of(Images(dataset=folder, on_unreadable="skip"))
    assert (
        "revision newest) row 5: column 'label' holds no label. Name another data.label_column"
        in unlabelled
    )
    columns["label"][4] = 1
    columns["image"][6], columns["image"][7] = None, {"bytes": None, "path": str(tmp_path / "gone")}
    folder = write_dataset(tmp_path / "f", {"train": columns}, features)
    table = library.hub_table(folder, subset=None, split="train", revision=None)
    for row, problem in (
        (6, "row 7: column 'image' holds no file"),
        (7, "row 8: the file cannot be read: .*gone"),
    ):
        with pytest.raises(DataError, match=problem):
            read_picture(table.file("image", row), "a")
    sound = {"audio": [{"bytes": b"noise", "path": None}] * 2, "label": [0, 1]}
    folder = write_dataset(
        tmp_path / "s",
        {"train": sound},
        {"audio": datasets.Audio(), "label": datasets.ClassLabel(names=DIGITS)},
    )
    pytest.importorskip("soundfile")
    found = problem_of(Audio(dataset=folder))
    assert "split train, revision newest) row 1: cannot be read as sound" in found


def test_a_picture_of_very_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = digits_dataset(tmp_path / "digits", {"train": 40})
    monkeypatch.setattr(images, "LARGEST", 10)
    text = problem_of(Images(dataset=folder))
    assert (
        "revision newest) row 1: has 64 pixels; allowed: at most 10 (39 other pictures too)" in text
    )


@pytest.mark.parametrize(
    ("cls", "section", "problem"),
    [
        (Images, {}, "neither path nor dataset is given; allowed: exactly one"),
        (Audio, {"path": "a", "dataset": "b"}, "both path and dataset are given"),
        (
            Images,
            {"path": "a", "image_column": "b"},
            "image_column has no effect with path; it applies to dataset",
        ),
        (Audio, {"path": "a", "audio_column": "b"}, "audio_column has no effect with path"),
        (
            Audio,
            {"dataset": "a", "group": "b"},
            "group has no effect with dataset; it applies to path. Remove group",
        ),
        (
            TableSource,
            {"path": "a", "target": "y", "revision": "b"},
            "revision has no effect with path",
        ),
        (
            TableSource,
            {"dataset": "a", "target": "y", "streaming": True},
            "streaming has no effect: data table reads rows in any order, from the disk",
        ),
        (
            LabelledText,
            {"path": "a", "split": "b"},
            "split has no effect with path; it applies to dataset",
        ),
        (
            Images,
            {"dataset": "a", "test": "train"},
            "the split 'train' is named twice",
        ),
        (
            LabelledText,
            {"dataset": "a", "validation": "t", "test": "t"},
            "the split 't' is named twice",
        ),
    ],
)
def test_settings_that_contradict_each_other(
    cls: Any, section: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(cls, section, "recipe.data")
