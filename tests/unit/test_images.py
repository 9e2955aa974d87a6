"""Pictures in folders: which are found, how they are split, decoded, resized and scaled."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import PHOTOGRAPHS, digit_folders, save
from PIL import Image

import groundup
from groundup.core.contracts.data import DataContext
from groundup.core.errors import DataError
from groundup.core.values import Example
from groundup.data.sources import images
from groundup.data.sources.images import Images
from groundup.media.images import read_picture
from groundup.processors.image import ImageConfig
from groundup.runs.processor import load_processor
from groundup.tasks.classify.task import Classify


def test_a_folder_of_classes_is_split_by_file(tmp_path: Path) -> None:
    root = digit_folders(tmp_path / "数字 图片", 60)
    (root / ".hidden").mkdir()
    (root / "0" / "notes.txt").write_text("no picture")
    (root / "0" / "._0001.png").write_bytes(b"left by a file manager")
    inner = root / "0" / "more" / "文字.JPG"
    save(inner, np.zeros((8, 8)))
    source = Images(path=str(root), validation_fraction=0.3)
    train, held_out = (source.examples(split, tmp_path) for split in ("train", "validation"))
    names = [e.name for e in train + held_out]
    assert len(names) == len(set(names)) == 61
    assert "0/more/文字.JPG" in names
    assert train[0].inputs == root / train[0].name
    assert all(e.target == e.name.split("/")[0] for e in train + held_out)
    inner.unlink()  # what is left stays on its side
    again = source.examples("train", tmp_path)
    assert {e.name for e in again} == {e.name for e in train} - {"0/more/文字.JPG"}
    assert source.card(tmp_path)["sizes"] == {"8 x 8 L": 60}


@pytest.mark.parametrize("held_out", ["validation", "val", "test"])
def test_folders_held_out_by_name(tmp_path: Path, held_out: str) -> None:
    digit_folders(tmp_path / "train", 30)
    digit_folders(tmp_path / held_out, 20)
    (tmp_path / "validation").mkdir(
        exist_ok=True
    )  # empty: not what is held out, if another is there
    source = Images(path=str(tmp_path))
    assert [len(source.examples(split, tmp_path)) for split in ("train", "validation")] == [30, 20]
    assert source.examples("validation", tmp_path)[0].name.startswith(f"{held_out}/")
    card = source.card(tmp_path)
    assert card["train"]["examples"] == 30
    assert card["set_aside"] == {"pictures": 0}


@pytest.mark.slow
def test_the_layout_of_imagenet_with_a_test_folder(tmp_path: Path) -> None:
    for split, count in (("train", 30), ("val", 20), ("test", 20)):
        digit_folders(tmp_path / split, count)
    save(tmp_path / "train" / "1" / "n01440764_1.JPEG", np.zeros((8, 8)))
    source = Images(path=str(tmp_path))
    assert source.splits() == ("train", "validation", "test")
    found = {split: source.examples(split, tmp_path) for split in source.splits()}
    assert {split: len(examples) for split, examples in found.items()} == {
        "train": 31,
        "validation": 20,
        "test": 20,
    }
    assert all(e.name.startswith("test/") for e in found["test"])
    assert source.card(tmp_path)["test"]["examples"] == 20
    save(tmp_path / "test" / "wolf" / "1.png", np.zeros((8, 8)))
    with pytest.raises(DataError, match="class 'wolf' is only in the test split"):
        source.examples("train", tmp_path)


def test_larger_data_is_read_picture_by_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = digit_folders(tmp_path / "root", 40)
    encoded: list[int] = []
    opened = context("train", tmp_path)
    counting = replace(
        opened, encode=lambda given: (encoded.append(len(given)), opened.encode(given))[1]
    )
    monkeypatch.setattr(images, "_FITS", 1000)  # bytes; one picture has 256
    stream = Images(path=str(root), validation_fraction=0.2).open(counting)
    next(stream)
    next(stream)
    assert encoded == [1, 8, 8]


def test_only_a_train_folder_is_split_by_file(tmp_path: Path) -> None:
    digit_folders(tmp_path / "train", 60)
    source = Images(path=str(tmp_path), validation_fraction=0.3)
    sizes = [len(source.examples(split, tmp_path)) for split in ("train", "validation")]
    assert sum(sizes) == 60
    assert 5 < sizes[1] < 30


def test_unreadable_pictures_are_set_aside_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = digit_folders(tmp_path / "root", 60)
    (root / "1" / "bad.png").write_bytes(b"nothing")
    source = Images(path=str(root), validation_fraction=0.3, unreadable="set_aside")
    names = [e.name for split in ("train", "validation") for e in source.examples(split, tmp_path)]  # type: ignore[arg-type]
    assert len(names) == 60
    assert "1/bad.png" not in names
    aside = source.card(tmp_path)["set_aside"]
    assert aside["pictures"] == 1
    assert aside["1/bad.png"].startswith("is no readable picture: ")
    source.open(context("train", tmp_path))
    assert "1 unreadable pictures are set aside: 1/bad.png" in caplog.text
    calls: list[Path] = []
    monkeypatch.setattr(images, "examine", lambda path: (calls.append(path), "8 x 8 L"))
    source.examples("train", tmp_path)
    assert not calls  # looked at once
    os.utime(root / "1" / "bad.png", (1, 1))
    source.examples("train", tmp_path)
    assert len(calls) == 61  # until a file changes
    (found,) = [
        p
        for p in (tmp_path / "images").iterdir()
        if "1/bad.png" not in json.loads(p.read_text())["problems"]
    ]
    found.write_text("{")  # cut off
    source.examples("train", tmp_path)
    assert len(calls) == 122


def context(split: Any, cache: Path, **changes: Any) -> DataContext:
    examples = [Example(str(n), np.full((8, 8), 255.0 * (n > 0)), n) for n in range(10)]
    task = Classify()
    processor = task.fit_processor(
        ImageConfig().fit(lambda: iter(examples)), lambda: iter(examples)
    )
    values: dict[str, Any] = {"split": split, "encode": lambda given: task.encode(given, processor)}
    values |= {
        "encode_key": "",
        "end_id": 0,
        "sequence_length": 0,
        "batch_size": 8,
        "micro_batch_size": 8,
        "seed": 0,
    }
    return DataContext(**{**values, "cache": cache, **changes})


@pytest.mark.slow
def test_memory_disk_and_workers_give_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = digit_folders(tmp_path / "root", 40)
    found = []
    for in_memory, workers in ((True, 0), (False, 0), (False, 2), ("auto", 0)):
        source = Images(path=str(root), validation_fraction=0.2, in_memory=in_memory)  # type: ignore[arg-type]
        stream = source.open(context("train", tmp_path, workers=workers))
        found.append(torch.cat([next(stream)["inputs"] for _ in range(10)]))
        stream.close()
    assert all(torch.equal(found[0], other) for other in found[1:])
    kept: list[bool] = []
    monkeypatch.setattr(
        images, "open_indexed_stream", lambda *given, in_memory: kept.append(in_memory)
    )
    for limit in (1 << 30, 100):
        monkeypatch.setattr(images, "_FITS", limit)
        Images(path=str(root), validation_fraction=0.2).open(context("train", tmp_path))
    assert kept == [True, False]


# ----------------------------------------------------------------------------------------- decoding
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)


def test_pixel_formats(tmp_path: Path) -> None:
    colour = Image.fromarray(COLOURS)
    np.testing.assert_array_equal(read_picture(colour, "p"), COLOURS)
    assert read_picture(colour, "p", 1).shape == (6, 5)
    grey = colour.convert("L")
    np.testing.assert_array_equal(read_picture(grey, "p"), np.asarray(grey))
    assert read_picture(grey, "p", 3).shape == (6, 5, 3)
    palette = colour.quantize(256)
    palette.save(tmp_path / "palette.gif")
    assert np.abs(read_picture(tmp_path / "palette.gif", "p").astype(int) - COLOURS).max() < 60
    assert set(np.unique(read_picture(grey.point(lambda v: 255 * (v > 99)).convert("1"), "p"))) == {
        0,
        255,
    }
    wide = np.arange(30, dtype=np.uint16).reshape(6, 5) * 2000
    Image.fromarray(wide).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "wide.png", "p"), wide >> 8)
    assert read_picture(colour.convert("CMYK"), "p").shape == (6, 5, 3)


def test_transparent_pixels_are_laid_on_white(tmp_path: Path) -> None:
    layers = np.dstack([COLOURS, np.zeros((6, 5), np.uint8)])
    layers[0, :, 3] = 255
    save(tmp_path / "alpha.png", layers)
    found = read_picture(tmp_path / "alpha.png", "p")
    np.testing.assert_array_equal(found[0], COLOURS[0])
    assert (found[1:] == 255).all()
    assert read_picture(Image.fromarray(layers).convert("LA"), "p").shape == (6, 5)


@pytest.mark.slow
def test_photographs_are_turned_as_the_camera_says_and_read_from_bytes(tmp_path: Path) -> None:
    with Image.open(PHOTOGRAPHS / "flower.jpg") as photograph:
        exif = photograph.getexif()
        exif[0x0112] = 6  # held upright
        photograph.save(tmp_path / "turned.png", exif=exif)
        upright = np.asarray(photograph)
    found = read_picture(str(tmp_path / "turned.png"), "p")
    np.testing.assert_array_equal(found, np.rot90(upright, -1))
    np.testing.assert_array_equal(read_picture((tmp_path / "turned.png").read_bytes(), "p"), found)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_resizing_a_photograph_agrees_with_pillow(resize: Any) -> None:
    path = PHOTOGRAPHS / "china.jpg"  # 427 x 640
    example = Example("a", path, "x")
    fitted = ImageConfig(size=(48, 40), resize=resize, normalise="none").fit(
        lambda: iter([example])
    )
    assert fitted.input_shape == (3, 48, 40)
    found = fitted.encode_inputs([path])["inputs"][0].permute(1, 2, 0).numpy()
    with Image.open(path) as image:
        bilinear = Image.Resampling.BILINEAR
        if resize == "stretch":
            expected = np.asarray(image.resize((40, 48), bilinear))
        elif resize == "crop":
            expected = np.asarray(image.resize((72, 48), bilinear))[:, 16:56]
        else:
            expected = np.zeros((48, 40, 3))
            expected[10:37] = np.asarray(image.resize((40, 27), bilinear))
            assert (found[:10] == 0).all()
    assert np.abs(found - expected).mean() < 0.5


def test_every_kind_of_input_gives_the_same_tensor(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", COLOURS)
    fitted = ImageConfig(size=(4, 4), channels=1).fit(lambda: iter([Example("a", path, "x")]))
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).convert("L").save(buffer, "PNG")
    given = [
        path,
        str(path),
        path.read_bytes(),
        Image.fromarray(COLOURS),
        COLOURS,
        buffer.getvalue(),
    ]
    found = fitted.encode_inputs(given)["inputs"]
    assert found.shape == (6, 1, 4, 4)
    assert 0 < found.min() < found.max() <= 1
    torch.testing.assert_close(found, found[:1].expand_as(found), atol=0.01, rtol=0)
    coloured = ImageConfig(channels=3).fit(lambda: iter([Example("a", np.ones((2, 2)), "x")]))
    assert coloured.input_shape == (3, 2, 2)


def test_the_scale_of_many_files_is_learned_from_a_sample_that_any_order_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.processors.image._SAMPLE", 10)
    source = Images(path=str(digit_folders(tmp_path / "root", 40)), validation_fraction=0.2)
    examples = source.examples("train", tmp_path)
    config = ImageConfig(normalise="standard")
    one, other = config.fit(lambda: iter(examples)), config.fit(lambda: reversed(examples))
    np.testing.assert_allclose([one.mean, one.scale], [other.mean, other.scale])
    every = np.stack([np.asarray(read_picture(e.inputs, "p")) for e in examples])
    assert abs(one.mean[0] - every.mean()) < 0.2 * every.mean()


def test_pixels_and_back_and_saved(tmp_path: Path) -> None:
    examples = [Example("a", COLOURS, "x"), Example("b", 255 - COLOURS, "y")]
    fitted = ImageConfig(normalise="standard", size=(6, 5), resize="pad", channels=3).fit(
        lambda: iter(examples)
    )
    encoded = fitted.encode_inputs([COLOURS])["inputs"]
    pixels = fitted.to_pixels(encoded)
    torch.testing.assert_close(
        pixels[0].permute(1, 2, 0), torch.from_numpy(COLOURS / np.float32(COLOURS.max()))
    )
    torch.testing.assert_close(fitted.from_pixels(pixels), encoded)
    fitted.save(tmp_path)
    again: Any = load_processor(tmp_path)
    assert (again.resize, again.convert, again.largest) == ("pad", True, fitted.largest)
    assert torch.equal(
        again.encode_inputs([COLOURS[:, :, 0]])["inputs"][:, 0].isnan(), torch.zeros(1, 6, 5).bool()
    )


@pytest.mark.slow
def test_a_classifier_of_picture_files_from_recipe_to_prediction(tmp_path: Path) -> None:
    root = digit_folders(tmp_path / "root", 400)
    recipe = {
        **{"name": "files", "model": {"name": "cnn", "channels": [8], "hidden": [32]}},
        **{
            "processor": {"name": "image", "pad_to": [10, 10]},
            "data": {"name": "images", "path": str(root)},
        },
        "task": {"name": "classify", "augmentation": {"shift": 0.05, "mixup": 0.2}},
        **{"optim": {"lr": 1e-2}, "training": {"batch_size": 32, "steps": 60}},
        **{
            "evaluation": {"every": 30},
            "checkpoints": {"every": 30},
            "machine": {"precision": "fp32", "threads": 1},
        },
    }
    run = groundup.train(recipe, runs=tmp_path)
    assert groundup.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]["accuracy"] > 0.5
    path = next((root / "3").iterdir())
    assert groundup.predict(run.folder, path) == groundup.predict(run.folder, [str(path)])[0]


def test_a_picture_file_means_what_the_array_meant_that_the_processor_was_fitted_to(
    tmp_path: Path,
) -> None:
    digits = np.arange(0, 17, dtype=np.float64)[:16].reshape(1, 4, 4)
    digits[0, 0, 0] = 16
    fitted = ImageConfig().fit(lambda: iter([Example("a", digits[0], "x")]))
    pixels = np.round(digits[0] * 255 / 16).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    from_file = fitted.encode_inputs([tmp_path / "digit.png"])["inputs"]
    torch.testing.assert_close(
        from_file, fitted.encode_inputs([digits[0]])["inputs"], rtol=0, atol=2e-3
    )
