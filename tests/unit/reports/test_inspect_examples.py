"""``groundup data inspect`` of labelled examples: counts, warnings, and the sheet of pictures."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixed_source import Fixed
from pictures import digit_folders
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from groundup import api
from groundup.cli.main import app
from groundup.core.values import Example
from groundup.data.sources.images import Images
from groundup.data.sources.table import TableSource
from groundup.media.augmentation.settings import Augment
from groundup.processors.image import ImageConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.reports.inspect_examples import summarise_examples
from groundup.reports.picture_sheet import write_sheet
from groundup.tasks.classify.task import Classify


def texts(*given: tuple[str, Any]) -> tuple[Example, ...]:
    return tuple(Example(str(n), text, label) for n, (text, label) in enumerate(given))


def warnings_of(train: tuple[Example, ...], validation: tuple[Example, ...]) -> list[str]:
    task, both = Classify(), texts(("a", "x"), ("b", "y"), ("c", "z"))
    processor = task.fit_processor(BytesConfig().fit(lambda: iter(())), lambda: iter(both))
    source = Fixed.model_construct(train=train, validation=validation)
    return summarise_examples(source, task, processor, Path()).warnings


def test_what_deserves_attention() -> None:
    balanced = texts(("one", "x"), ("two", "y"))
    assert warnings_of(balanced, texts(("three", "x"), ("four", "y"))) == []
    assert warnings_of(balanced, ()) == ["The validation split is empty."]
    assert "1 validation examples are also in the training split." in warnings_of(
        balanced, texts(("two", "x"))
    )
    assert "1 of 3 train examples are exact duplicates." in warnings_of(
        (*balanced, *texts(("one", "y"))), balanced
    )
    many = texts(*((str(n), "x") for n in range(21)), ("b", "y"), ("c", "y"))
    assert "Class 'x' has 21 training examples and 'y' 2: evaluate each by itself." in warnings_of(
        many, balanced
    )
    assert "All training examples have the class 'x'." in warnings_of(
        texts(("one", "x")), texts(("two", "x"))
    )
    assert "No held-out example has the class 'y'." in warnings_of(balanced, texts(("three", "x")))


def table(root: Path, rows: list[str], target: str, task: str) -> dict[str, Any]:
    path = root / "rows.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return {
        "name": "look",
        "model": {"name": "mlp", "hidden": [4]},
        "task": task,
        "processor": "table",
        "data": {"name": "table", "path": str(path), "target": target},
        "training": {"steps": 1},
    }


def test_copies_in_a_table_are_found_within_a_split_and_across(tmp_path: Path) -> None:
    rows = ["a,b,y", *(f"{n % 5},{n % 3},{n % 2}" for n in range(120))]
    text = printed(api.inspect_data(table(tmp_path, rows, "y", "classify")))
    train, validation = (
        [example.inputs["a"] + example.inputs["b"] for example in split]
        for split in (
            TableSource(path=str(tmp_path / "rows.csv"), target="y").examples(split, tmp_path)
            for split in ("train", "validation")
        )
    )
    assert len({*train}) == 15
    assert f"{len(train) - 15} of {len(train)} train examples are exact duplicates." in text
    assert f"{len(validation)} validation examples are also in the training split." in text
    assert "a: 0, b: 0" in text


def test_a_sample_is_drawn_from_all_rows_and_said(tmp_path: Path) -> None:
    rows = ["a,y", *(f"{n},{n % 2}" for n in range(2_000))]
    text = printed(api.inspect_data(table(tmp_path, rows, "y", "classify"), limit=50))
    found = TableSource(path=str(tmp_path / "rows.csv"), target="y").examples("train", tmp_path)
    assert f"50 of {len(found):,} rows, drawn with seed 0" in text
    assert f"50 of {2_000 - len(found):,} rows, drawn with seed 0" in text
    # the counts are of all rows
    assert f"all    {len(found):,}" in text


def test_numbers_are_not_taken_for_classes(tmp_path: Path) -> None:
    rows = ["a,price", *(f"{n % 7},{100 + n * 1.5}" for n in range(300))]
    for task in ("regression", "classify"):
        text = printed(
            api.inspect_data(
                table(tmp_path, rows, "price", task), {"data.fraction": 0.0}, examples=0
            )
        )
        assert "Classes" not in text
        assert "Numbers to predict" in text
        # least, median and most of 100, 101.5, ... 548.5
        for number in ("100", "324.2", "548.5"):
            assert number in text
        takes = "holds 300 different numbers, and the task takes each for a class"
        assert (takes in text) == (task == "classify")


def test_classes_that_are_numbers_stay_classes(tmp_path: Path) -> None:
    rows = ["a,digit", *(f"{n % 7},{n % 30}" for n in range(3_000))]
    text = printed(api.inspect_data(table(tmp_path, rows, "digit", "classify")))
    assert "Classes" in text
    assert "Numbers to predict" not in text


def recipe_for(root: Path, **task: Any) -> dict[str, Any]:
    return {
        **{
            "name": "look",
            "model": "cnn",
            "task": {"name": "classify", **task},
            "processor": "image",
        },
        **{
            "data": {"name": "images", "path": str(root), "fraction": 0.2},
            "training": {"steps": 1},
        },
    }


def printed(renderables: list[Any]) -> str:
    console = Console(file=StringIO(), width=300)
    for each in renderables:
        console.print(each)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.slow
def test_pictures_are_counted_and_drawn(tmp_path: Path) -> None:
    root = digit_folders(tmp_path / "root", 100)
    (root / "9" / "copy.png").write_bytes(next((root / "1").iterdir()).read_bytes())
    text = printed(
        api.inspect_data(
            recipe_for(root, augmentation={"rotate_degrees": 15.0, "mixup": 0.4}), examples=3
        )
    )
    for words in ("Classes", "validation", "1 x 8 x 8, float32", "8 x 8 L", "set_aside.pictures"):
        assert words in text
    assert "exact duplicates" in text or "also in the training split" in text
    path = Path(text.rpartition("augmentation: ")[2].strip().replace("\n", ""))
    with Image.open(path) as sheet:
        assert sheet.size == (8 * (96 + 12), 28 + 3 * (96 + 16 + 12))
        first = np.asarray(sheet.crop((6, 28, 102, 124)).convert("L"))
    example = sorted((root / "0").iterdir())
    shown = [np.asarray(Image.open(p).resize((96, 96), Image.Resampling.NEAREST)) for p in example]
    assert any(np.abs(first.astype(int) - each).max() <= 1 for each in shown)


@pytest.mark.slow
def test_without_augmentation_only_the_originals_are_drawn(tmp_path: Path) -> None:
    source = Images(path=str(digit_folders(tmp_path / "root", 60)), fraction=0.2)
    examples = source.examples("train", tmp_path)
    for task, columns in ((Classify(), 1), (Classify(augmentation=Augment(flip=True)), 8)):
        processor = task.fit_processor(
            ImageConfig().fit(lambda: iter(examples)), lambda: iter(examples)
        )
        write_sheet(examples, task, processor, tmp_path / "sheet.png", 4)
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.size == (columns * 108, 28 + 4 * 124)


@pytest.mark.slow
def test_the_command_prints_it(tmp_path: Path) -> None:
    root = digit_folders(tmp_path / "root", 60)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: look\nmodel: cnn\ntask: classify\nprocessor: image\ntraining: {steps: 1}\n"
        f"data: {{name: images, path: '{root}', fraction: 0.2}}\n"
    )
    found = CliRunner().invoke(app, ["data", "inspect", str(recipe)])
    assert found.exit_code == 0, found.output
    assert "Pictures before and after augmentation" in found.output
