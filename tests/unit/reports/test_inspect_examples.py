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
from groundup.media.augmentation.settings import Augment
from groundup.processors.image import ImageConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.reports.inspect_examples import summarise_examples, write_sheet
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
