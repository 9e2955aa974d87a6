"""Pictures of a Hugging Face data set: their columns, splits and labels, read from the disk one by
one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub import DIGITS, datasets, digit_columns, digits_dataset, own_cache, png, write_dataset
from pictures import digit_folders

import groundup
from groundup.contracts.data import DataContext
from groundup.core.values import StoredFile
from groundup.data.sources import images
from groundup.data.sources.images import Images
from groundup.data.stream import in_memory as in_memory_stream
from groundup.processors.image import ImageConfig
from groundup.reports.sampling import _digest
from groundup.tasks.classify.task import Classify

pytestmark = [pytest.mark.usefixtures("own_cache"), pytest.mark.xdist_group("datasets")]
__all__ = ["own_cache"]


def sizes(source: Images, cache: Path) -> dict[str, int]:
    return {split: len(source.examples(split, cache)) for split in source.splits()}


@pytest.mark.slow
def test_the_splits_of_a_data_set_are_what_they_are_called(tmp_path: Path) -> None:
    folder = digits_dataset(tmp_path / "digits", {"train": 60, "validation": 20, "test": 30})
    source = Images(dataset=folder, licence="BSD-3-Clause")
    assert sizes(source, tmp_path) == {"train": 60, "validation": 20, "test": 30}
    first = source.examples("train", tmp_path)[0]
    expected = digit_columns(0, 1)
    assert (first.name, first.target) == ("train:1", str(expected["label"][0]))
    assert isinstance(first.inputs, StoredFile)
    assert first.inputs.read() == expected["image"][0]["bytes"]
    assert first.origin == f"data set {folder} (subset none, split train, revision newest) row 1"
    card = source.card(tmp_path)
    assert (card["source"], card["licence"], card["revision"]) == (folder, "BSD-3-Clause", "newest")
    assert len(card["version"]) == 16
    assert card["splits"] == {"train": "train", "validation": "validation", "test": "test"}
    assert card["sizes"] == {"8 x 8 L": 110}
    assert sum(card["test"]["labels"].values()) == 30


@pytest.mark.slow
def test_without_a_validation_split_a_share_is_drawn_and_the_test_split_stays(
    tmp_path: Path,
) -> None:
    folder = digits_dataset(tmp_path / "digits", {"train": 60, "test": 30})
    found = sizes(Images(dataset=folder, fraction=0.3), tmp_path)
    assert found["train"] + found["validation"] == 60
    assert 5 < found["validation"] < 30
    assert found["test"] == 30
    other = Images(dataset=folder, fraction=0.3, seed=1).examples("validation", tmp_path)
    assert {e.name for e in other} != {
        e.name for e in Images(dataset=folder, fraction=0.3).examples("validation", tmp_path)
    }


@pytest.mark.slow
def test_named_splits_and_parts_of_splits(tmp_path: Path) -> None:
    folder = digits_dataset(tmp_path / "digits", {"train": 60, "test": 30})
    named = Images(dataset=folder, validation="test")
    assert sizes(named, tmp_path) == {"train": 60, "validation": 30}
    parts = Images(dataset=folder, split="train[:40]", validation="train[40:]")
    assert sizes(parts, tmp_path) == {"train": 40, "validation": 20, "test": 30}


def test_a_test_split_without_labels_is_not_judged(tmp_path: Path) -> None:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=DIGITS)}
    splits = {"train": digit_columns(0, 60), "test": digit_columns(60, 70) | {"label": [-1] * 10}}
    source = Images(dataset=write_dataset(tmp_path / "digits", splits, features))
    assert source.splits() == ("train", "validation")
    assert source.card(tmp_path)["without_labels"] == ["test"]


@pytest.mark.slow
def test_columns_are_found_by_their_types_or_named(tmp_path: Path) -> None:
    bytes_alone = {"image": datasets.Value("binary"), "label": datasets.Value("string")}
    columns = digit_columns(0, 40)
    splits = {
        "train": {
            "image": [each["bytes"] for each in columns["image"]],
            "label": [*map(str, columns["label"])],
        }
    }
    plain = Images(dataset=write_dataset(tmp_path / "plain", splits, bytes_alone))
    assert plain.examples("train", tmp_path)[0].target == str(columns["label"][0])
    features = {
        **{
            "before": datasets.Image(),
            "after": datasets.Image(),
            "fine": datasets.ClassLabel(names=DIGITS),
        },
        **{
            "tags": datasets.List(datasets.ClassLabel(names=["odd", "even"])),
            "height": datasets.Value("float32"),
        },
    }
    count = len(columns["label"])
    splits = {
        "train": {
            **{
                "before": columns["image"],
                "after": columns["image"][::-1],
                "fine": columns["label"],
            },
            **{
                "tags": [[label % 2] for label in columns["label"]],
                "height": [n / 7 for n in range(count)],
            },
        }
    }
    folder = write_dataset(tmp_path / "several", splits, features)
    source = Images(dataset=folder, image_column="after", label_column="tags")
    first = next(e for e in source.examples("train", tmp_path) if e.name == "train:1")
    assert first.target == [["odd", "even"][columns["label"][0] % 2]]
    assert first.inputs.read() == columns["image"][-1]["bytes"]
    assert source.card(tmp_path)["train"]["labels"].keys() == {"even", "odd"}
    numbers = Images(dataset=folder, image_column="before", label_column="height")
    assert isinstance(numbers.examples("train", tmp_path)[0].target, float)
    assert numbers.card(tmp_path)["train"]["labels"]


def test_many_different_numbers_are_not_listed_in_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_MOST_NUMBERS", 5)
    folder = digits_dataset(tmp_path / "digits", {"train": 60}, label=datasets.Value("float64"))
    assert Images(dataset=folder).card(tmp_path)["train"]["different numbers"] == 10


@pytest.mark.slow
def test_folders_of_pictures_that_the_library_reads_stay_on_the_disk(tmp_path: Path) -> None:
    for split, count, first in (("train", 30, 0), ("val", 20, 30), ("test", 20, 50)):
        digit_folders(tmp_path / "root" / split, count, first=first)
    by_library, by_path = (
        Images(dataset=str(tmp_path / "root")),
        Images(path=str(tmp_path / "root")),
    )
    for split in by_library.splits():
        own, other = (source.examples(split, tmp_path) for source in (by_library, by_path))
        assert sorted(e.inputs.read() for e in own) == sorted(e.inputs.read_bytes() for e in other)
        assert sorted(e.target for e in own) == sorted(e.target for e in other)


def context(split: Any, cache: Path, source: Images, **changes: Any) -> DataContext:
    task = Classify()
    examples = source.examples("train", cache)
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
    folder = digits_dataset(tmp_path / "digits", {"train": 40, "validation": 8})
    found = []
    for in_memory, workers in ((True, 0), (False, 0), (False, 2)):
        source = Images(dataset=folder, in_memory=in_memory)  # type: ignore[arg-type]
        stream = source.open(context("train", tmp_path, source, workers=workers))
        found.append(torch.cat([next(stream)["inputs"] for _ in range(6)]))
        stream.close()
    assert all(torch.equal(found[0], other) for other in found[1:])
    reads: list[int] = []
    source = Images(dataset=folder)
    opened = context("train", tmp_path, source)
    example = source.examples("train", tmp_path)[0]
    plain = type(example.inputs).read
    monkeypatch.setattr(
        type(example.inputs), "read", lambda cell: (reads.append(1), plain(cell))[1]
    )
    monkeypatch.setattr(in_memory_stream, "_FITS", 100)  # bytes: larger data is not kept
    stream = source.open(opened)
    assert len(reads) == 1  # the size of one
    next(stream)
    next(stream)
    stream.close()
    # Two batches of eight, and of the next two what was read before their turn.
    assert 1 + 16 <= len(reads) <= 1 + 32


def test_the_same_pictures_are_seen_as_the_same(tmp_path: Path) -> None:
    folder = digits_dataset(tmp_path / "digits", {"train": 60})
    examples = Images(dataset=folder).examples("train", tmp_path)
    again = Images(dataset=folder).examples("train", tmp_path)
    assert _digest(examples[3].inputs) == _digest(again[3].inputs) != _digest(examples[4].inputs)


def test_pictures_that_cannot_be_decoded_are_set_aside(tmp_path: Path) -> None:
    columns = digit_columns(0, 40)
    columns["image"][2] = {"bytes": b"no picture", "path": None}
    columns["image"][3] = None
    columns["image"][4] = {"bytes": None, "path": str(tmp_path / "gone.png")}
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=DIGITS)}
    source = Images(
        dataset=write_dataset(tmp_path / "d", {"train": columns}, features), on_unreadable="skip"
    )
    aside = source.card(tmp_path)["set_aside"]
    assert aside["pictures"] == 3
    assert aside["train:4"] == "column 'image' holds no file"
    assert sum(sizes(source, tmp_path).values()) == 37


@pytest.mark.slow
def test_training_resuming_and_predicting_from_a_data_set(tmp_path: Path) -> None:
    folder = digits_dataset(tmp_path / "digits", {"train": 60, "validation": 20, "test": 30})
    recipe: dict[str, Any] = {
        **{
            "name": "hub",
            "model": {"name": "mlp", "hidden": [16]},
            "task": "classify",
            "processor": "image",
        },
        **{
            "data": {"name": "images", "dataset": folder, "in_memory": False},
            "optim": {"lr": 1e-2},
        },
        **{
            "training": {"batch_size": 16, "steps": 2},
            "evaluation": {"every": 2, "test": True},
            "checkpoints": {"every": 1},
        },
        "machine": {"device": "cpu", "precision": "fp32", "threads": 1},
    }
    run = groundup.train(recipe, runs=tmp_path / "runs")
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows if row["kind"] == "test"] == ["test"]
    longer = {**recipe, "name": "longer", "training": {"batch_size": 16, "steps": 4}}
    whole = groundup.train(longer, runs=tmp_path / "whole")
    trainer = groundup.trainer(longer, runs=tmp_path / "cut")
    steps = trainer.steps()
    next(steps)
    next(steps)
    trainer.close()
    resumed = groundup.resume(tmp_path / "cut" / "longer")
    weights = [each.checkpoints.load(4, with_optimizer=False).model for each in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    picture = tmp_path / "a.png"
    picture.write_bytes(png(np.zeros((8, 8))))
    assert groundup.predict(run.folder, picture)
    assert groundup.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]["accuracy"] >= 0
