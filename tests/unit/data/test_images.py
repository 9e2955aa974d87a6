"""Pictures in folders: which are found, how they are split, decoded, resized and scaled."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from pictures import digit_folders, save

import groundup
from groundup.contracts.data import DataContext
from groundup.core.errors import DataError, RecipeError
from groundup.core.values import Example
from groundup.data.reading import picture_facts
from groundup.data.sources.images import Images
from groundup.data.splitting.drawing import say_once
from groundup.data.stream import in_memory as in_memory_stream
from groundup.media.images import read_picture
from groundup.processors.image import ImageConfig
from groundup.tasks.classify.task import Classify


def test_a_folder_of_classes_is_split_by_file(tmp_path: Path) -> None:
    root = digit_folders(tmp_path / "数字 图片", 60)
    (root / ".hidden").mkdir()
    (root / "0" / "notes.txt").write_text("no picture")
    (root / "0" / "._0001.png").write_bytes(b"left by a file manager")
    inner = root / "0" / "more" / "文字.JPG"
    save(inner, np.zeros((8, 8)))
    source = Images(path=str(root), fraction=0.3)
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


@pytest.mark.parametrize("held_out", ["validation", "val", "dev", "eval"])
def test_folders_held_out_by_name(tmp_path: Path, held_out: str) -> None:
    digit_folders(tmp_path / "train", 30)
    digit_folders(tmp_path / held_out, 20, first=30)
    (tmp_path / "validation").mkdir(
        exist_ok=True
    )  # empty: not what is held out, if another is there
    source = Images(path=str(tmp_path))
    assert [len(source.examples(split, tmp_path)) for split in ("train", "validation")] == [30, 20]
    assert source.examples("validation", tmp_path)[0].name.startswith(f"{held_out}/")
    card = source.card(tmp_path)
    assert card["train"]["examples"] == 30
    assert card["set_aside"] == {"pictures": 0}


def test_copies_of_a_picture_are_on_one_side(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    say_once.cache_clear()
    digit_folders(tmp_path / "root" / "train", 40)
    digit_folders(tmp_path / "root" / "test", 5)  # which training has as well
    source = Images(path=str(tmp_path / "root"))
    found = {split: source.examples(split, tmp_path) for split in source.splits()}
    assert sum(map(len, found.values())) == 40
    assert "5 examples are left out, being held out as well" in caplog.text
    files = source.card(tmp_path)["files"]
    assert (files["read"], files["left_out"]) == (40, {"held out as well": 5})
    root = digit_folders(tmp_path / "drawn", 40)
    before = {e.name for e in Images(path=str(root), fraction=0.3).examples("train", tmp_path)}
    for number, picture in enumerate(sorted(root.rglob("*.png"))[:20]):
        picture.with_name(f"{number}_again.png").write_bytes(picture.read_bytes())
    source = Images(path=str(root), fraction=0.3)
    sides = [
        {path.inputs.read_bytes() for path in source.examples(split, tmp_path)}
        for split in ("train", "validation")
    ]
    assert not sides[0] & sides[1]
    alone = {path.name for path in sorted(root.rglob("0*.png"))[20:]}
    for example in source.examples("train", tmp_path):  # what has no copy stays on its side
        assert example.inputs.name not in alone or example.name in before
    train = str(tmp_path / "root" / "train")
    with pytest.raises(DataError, match="nothing is left for train"):
        Images(path=train, validation=train).examples("train", tmp_path)


@pytest.mark.slow
def test_the_layout_of_imagenet_with_a_test_folder(tmp_path: Path) -> None:
    for split, count, first in (("train", 30, 0), ("val", 20, 30), ("test", 20, 50)):
        digit_folders(tmp_path / split, count, first=first)
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
    monkeypatch.setattr(in_memory_stream, "_FITS", 1000)  # bytes; one picture has 256
    stream = Images(path=str(root), fraction=0.2).open(counting)
    next(stream)
    next(stream)
    stream.close()
    # One for its size, two that were asked for, and some that were read before their turn.
    assert encoded in ([1, 8, 8], [1, 8, 8, 8], [1, 8, 8, 8, 8])


def test_only_a_train_folder_is_split_by_file(tmp_path: Path) -> None:
    digit_folders(tmp_path / "train", 60)
    source = Images(path=str(tmp_path), fraction=0.3)
    sizes = [len(source.examples(split, tmp_path)) for split in ("train", "validation")]
    assert sum(sizes) == 60
    assert 5 < sizes[1] < 30


def test_unreadable_pictures_are_set_aside_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = digit_folders(tmp_path / "root", 60)
    (root / "1" / "bad.png").write_bytes(b"nothing")
    source = Images(path=str(root), fraction=0.3, on_unreadable="skip")
    names = [e.name for split in ("train", "validation") for e in source.examples(split, tmp_path)]  # type: ignore[arg-type]
    assert len(names) == 60
    assert "1/bad.png" not in names
    aside = source.card(tmp_path)["set_aside"]
    assert aside["pictures"] == 1
    assert aside["1/bad.png"].startswith("is no readable picture: ")
    source.open(context("train", tmp_path))
    assert "1 unreadable pictures are left out: 1/bad.png" in caplog.text
    calls: list[Path] = []
    monkeypatch.setattr(picture_facts, "examine", lambda path: (calls.append(path), "8 x 8 L"))
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
        source = Images(path=str(root), fraction=0.2, in_memory=in_memory)  # type: ignore[arg-type]
        stream = source.open(context("train", tmp_path, workers=workers))
        found.append(torch.cat([next(stream)["inputs"] for _ in range(10)]))
        stream.close()
    assert all(torch.equal(found[0], other) for other in found[1:])
    kept: list[bool] = []
    monkeypatch.setattr(
        in_memory_stream, "open_indexed_stream", lambda *given, in_memory: kept.append(in_memory)
    )
    for limit in (1 << 30, 100):
        monkeypatch.setattr(in_memory_stream, "_FITS", limit)
        Images(path=str(root), fraction=0.2).open(context("train", tmp_path))
    assert kept == [True, False]


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


def test_a_table_next_to_the_pictures_says_their_classes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(20):
        save(root / f"{number}.png", np.full((4, 4), number))
    rows = "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(20))
    (root / "labels.csv").write_text(f"file_name,label\n{rows}", encoding="utf-8")
    source = Images(path=str(root), fraction=0.3)
    with pytest.raises(DataError, match=r"let labels\.csv say them: call it metadata\.csv"):
        source.examples("train", tmp_path)
    (root / "labels.csv").rename(root / "metadata.csv")
    train = source.examples("train", tmp_path)
    assert {example.target for example in train} == {"a", "b"}
    # changed labels are changed data
    assert source.contents()["root/metadata.csv"] == root / "metadata.csv"
    folders = Images(path=str(digit_folders(tmp_path / "folders", 20, "01")), label_column="b")
    with pytest.raises(RecipeError, match="label_column has no effect: there is no"):
        folders.examples("train", tmp_path)


def test_copies_with_other_classes_and_files_of_several_pictures_are_said(tmp_path: Path) -> None:
    root = digit_folders(tmp_path / "root", 20, "01")
    first = sorted((root / "0").iterdir())[0]
    (root / "1" / "copy.png").write_bytes(first.read_bytes())
    warnings = Images(path=str(root)).card(tmp_path)["warnings"]
    assert "1 pictures are the same as another one with another label" in warnings[0]
    frames = [PIL.Image.fromarray(np.full((8, 8), n, np.uint8)) for n in (0, 99)]
    frames[0].save(root / "0" / "a.gif", save_all=True, append_images=frames[1:])
    seen: Counter[str] = Counter()
    read_picture(root / "0" / "a.gif", "a", seen=seen)
    assert seen["of several frames or pages, of which the first is read"] == 1
