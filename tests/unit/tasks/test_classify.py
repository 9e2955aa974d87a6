"""Arrays, pictures and classes: what is read, how it is scaled, in which order it comes, and what
is judged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import groundup
from groundup.contracts.data import DataContext
from groundup.core.values import Example
from groundup.data.reading.idx import read_idx
from groundup.data.sources.arrays import Arrays
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.metrics.classification import evaluate_classes, wilson_interval
from groundup.processors.class_targets import SingleLabel
from groundup.processors.image import ImageConfig
from groundup.runs.processor import load_processor
from groundup.tasks.classify.task import Classify


def write_idx(path: Path, values: np.ndarray[Any, Any], kind: int = 8) -> Path:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, kind, values.ndim, *values.shape)
    content = header + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def digits(count: int = 200) -> list[Example]:
    return Arrays().examples("train", Path())[:count]


def labelled(examples: list[Example]) -> Any:
    return Classify().fit_processor(
        ImageConfig().fit(lambda: iter(examples)), lambda: iter(examples)
    )


def context(split: Any, processor: Any, **changes: Any) -> DataContext:
    task = Classify()
    values: dict[str, Any] = {
        "split": split,
        "encode": lambda examples: task.encode(examples, processor),
    }
    values |= {
        "encode_key": "",
        "end_id": 0,
        "sequence_length": 0,
        "batch_size": 8,
        "micro_batch_size": 8,
        "seed": 0,
    }
    return DataContext(**{**values, "cache": Path(), **changes})


@pytest.mark.parametrize("name", ["pictures.idx", "pictures.gz"])
def test_idx_files_are_read(tmp_path: Path, name: str) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(read_idx(write_idx(tmp_path / name, values)), values)
    wide = np.arange(6, dtype=">i4").reshape(2, 3)
    np.testing.assert_array_equal(read_idx(write_idx(tmp_path / name, wide, 12)), wide)


def test_an_npz_is_split_by_example(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).random((300, 5, 5)), y=np.arange(300) % 3)
    source = Arrays(path=str(path), fraction=0.2)
    sides = {
        split: {e.name for e in source.examples(split, tmp_path)}
        for split in ("train", "validation")
    }
    assert not sides["train"] & sides["validation"]
    assert len(sides["train"] | sides["validation"]) == 300
    assert 40 <= len(sides["validation"]) <= 80
    card = source.card(tmp_path)
    assert card["shape"] == [5, 5]
    assert sum(card["train"]["labels"].values()) == len(sides["train"])


def test_a_test_split_of_its_own(tmp_path: Path) -> None:
    pictures, labels = np.zeros((40, 2, 2), np.uint8), np.arange(40, dtype=np.uint8) % 4
    folder = tmp_path / "mnist"
    folder.mkdir()
    paths = {
        name: write_idx(folder / name, values)
        for name, values in (
            ("train-images-idx3-ubyte.gz", pictures),
            ("train-labels-idx1-ubyte.gz", labels),
            ("t10k-images-idx3-ubyte", pictures[:3]),
            ("t10k-labels-idx1-ubyte", labels[:3]),
        )
    }
    images, names, test_images, test_names = (str(path) for path in paths.values())
    np.savez(
        tmp_path / "all.npz",
        x_train=pictures,
        y_train=labels,
        x_test=pictures[:3],
        y_test=labels[:3],
    )
    for source in (
        Arrays(path=str(folder)),
        Arrays(path=str(tmp_path / "all.npz")),
        Arrays(path=images, labels_path=names, test=test_images, test_labels_path=test_names),
    ):
        assert source.splits() == ("train", "validation", "test")
        sizes = [len(source.examples(split, tmp_path)) for split in ("train", "validation")]
        assert sum(sizes) == 40
        assert min(sizes) > 0
        assert [e.target for e in source.examples("test", tmp_path)] == [0, 1, 2]
        assert source.card(tmp_path)["test"] == {"examples": 3, "labels": {"0": 1, "1": 1, "2": 1}}
    without = Arrays(path=images, labels_path=names)
    assert without.splits() == ("train", "validation")
    assert without.examples("test", tmp_path) == []


@pytest.mark.parametrize("normalise", ["unit", "standard", "none"])
def test_pictures_are_scaled_by_the_training_split_and_padded(
    normalise: Any, tmp_path: Path
) -> None:
    examples = digits()
    fitted = ImageConfig(normalise=normalise, pad_to=(12, 13)).fit(lambda: iter(examples))
    assert fitted.input_shape == (1, 12, 13)
    values = fitted.encode_inputs([e.inputs for e in examples])["inputs"]
    assert values.shape == (200, 1, 12, 13)
    assert (
        values[:, :, :2].abs().sum()
        == values[:, :, -2:].abs().sum()
        == values[..., :2].abs().sum()
        == 0
    )
    inside = values[:, :, 2:10, 2:10]
    raw = torch.from_numpy(np.stack([e.inputs for e in examples]))[:, None]
    expected = {
        "unit": raw / 16,
        "none": raw,
        "standard": (raw - raw.mean()) / raw.std(unbiased=False),
    }
    torch.testing.assert_close(inside, expected[normalise])
    fitted.save(tmp_path)
    again = load_processor(tmp_path)
    torch.testing.assert_close(again.encode_inputs([examples[0].inputs])["inputs"], values[:1])  # type: ignore[attr-defined]


def test_colour_pictures_have_their_channels_first() -> None:
    colours = [Example("a", np.full((2, 3, 3), 7.0), "x"), Example("b", np.zeros((2, 3, 3)), "y")]
    fitted = ImageConfig(normalise="standard").fit(lambda: iter(colours))
    assert fitted.input_shape == (3, 2, 3)


def test_every_epoch_has_each_example_once_in_another_order_whatever_the_micro_batch() -> None:
    examples = digits(24)
    processor = labelled(examples)
    orders = {}
    for micro_batch_size in (2, 8):
        stream = open_indexed_stream(
            examples, context("train", processor, micro_batch_size=micro_batch_size)
        )
        batches = [next(stream)["inputs"].flatten(1) for _ in range(48 // micro_batch_size)]
        orders[micro_batch_size] = torch.cat(batches)
    assert torch.equal(orders[2], orders[8])
    first, second = orders[8][:24], orders[8][24:]
    assert not torch.equal(first, second)
    assert torch.equal(first.sum(1).sort().values, second.sum(1).sort().values)


def test_validation_comes_once_and_in_order() -> None:
    examples = digits(21)
    processor = labelled(examples)
    batches = list(open_indexed_stream(examples, context("validation", processor)))
    assert [len(batch["labels"]) for batch in batches] == [8, 8, 5]
    labels = torch.cat([batch["labels"] for batch in batches])
    assert torch.equal(labels, processor.targets.encode([e.target for e in examples]))


def test_the_loss_is_torchs_and_a_sum() -> None:
    torch.manual_seed(0)
    outputs, labels = torch.randn(9, 4), torch.randint(4, (9,))
    task = Classify(label_smoothing=0.1)
    loss = task.loss(outputs, {"labels": labels})
    expected = F.cross_entropy(outputs, labels, label_smoothing=0.1)
    torch.testing.assert_close(loss.terms["label"].total / loss.terms["label"].count, expected)
    summary = task.summarise(
        {
            "label": (float(loss.terms["label"].total), 9.0),
            "right": (6.0, 1.0),
            "examples": (9.0, 1.0),
        }
    )
    assert summary == {"loss": pytest.approx(float(expected)), "accuracy": pytest.approx(6 / 9)}


def test_the_judgement() -> None:
    chances = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    found = evaluate_classes(chances, np.array([0, 1, 1, 0]))
    assert found.metrics["accuracy"] == 0.75
    assert found.metrics["balanced_accuracy"] == 0.75
    assert found.confusion.tolist() == [[2, 0], [1, 1]]
    assert found.metrics["expected_calibration_error"] == pytest.approx((0.2 + 0.6 + 0.3 + 0.1) / 4)
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(81, 263) == pytest.approx(
        (0.2553, 0.3662), abs=1e-4
    )  # Newcombe, 1998, table I


@pytest.mark.slow
def test_a_classifier_from_recipe_to_prediction(tmp_path: Path) -> None:
    recipe = {
        **{
            "name": "tiny",
            "model": {"name": "cnn", "channels": [8], "hidden": [32]},
            "task": "classify",
        },
        **{"processor": {"name": "image", "pad_to": [10, 10]}, "data": "arrays"},
        **{"optim": {"lr": 1e-2}, "training": {"batch_size": 32, "steps": 80}},
        **{
            "evaluation": {"every": 40},
            "checkpoints": {"every": 40},
            "machine": {"precision": "fp32", "threads": 1},
        },
    }
    run = groundup.train(recipe, runs=tmp_path)
    found = groundup.evaluate(run.folder)["runs"][0]["evaluation"]
    assert found["metrics"]["accuracy"] > 0.6
    held_out = Arrays().examples("validation", tmp_path)[:3]
    answers = groundup.predict(run.folder, [e.inputs for e in held_out])
    assert set(answers) <= set("0123456789")
    best = groundup.predict(run.folder, held_out[0].inputs, top=2)
    assert best[0][0] == answers[0]
    assert best[0][1] >= best[1][1]
    assert "examples_per_s" in (run.folder / "metrics.jsonl").read_text()
    assert "examples a second" in (run.folder / "report.html").read_text()


def test_classes_that_look_like_several_labels_are_said() -> None:
    for labels in (["a;b", "a", "b;c", "c"], ['["a"]', '["a", "b"]']):
        (note,) = SingleLabel.fit(labels).notes
        assert "set task.labels: multi_label" in note
    assert not SingleLabel.fit(["rock, hard", "pop", "jazz"]).notes
    assert "'01', '1' are one number" in SingleLabel.fit(["01", "1", "2"]).notes[0]
