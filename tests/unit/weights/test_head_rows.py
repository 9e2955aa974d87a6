"""Heads for other classes: rows of those that both models know are kept, by name."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_folders import write_encoder
from pictures import digit_folders
from pretrained_folders import write_tokenizer
from safetensors.torch import load_file
from tiny_families import tiny_model

import groundup
from groundup.weights.head_rows import describe_rows, keep_rows

OLD, NEW = ("acq", "crude", "earn"), ("earn", "grain", "acq", "ship")


def test_rows_by_name_in_another_order() -> None:
    base = {"head.weight": torch.randn(3, 5), "head.bias": torch.randn(3)}
    base |= {"head_ngrams": torch.randn(7, 3), "head_dense": torch.randn(5, 5)}
    own = {"head.weight": torch.randn(4, 5), "head.bias": torch.randn(4)}
    own |= {"head_ngrams": torch.randn(7, 4), "head_dense": torch.randn(5, 5)}
    found = keep_rows(OLD, NEW, base, own)
    for name in ("head.weight", "head.bias"):
        rows = (base[name][2], own[name][1], base[name][0], own[name][3])
        assert torch.equal(found[name], torch.stack(rows))
    assert torch.equal(found["head_ngrams"][:, 2], base["head_ngrams"][:, 0])
    assert torch.equal(found["head_ngrams"][:, 1], own["head_ngrams"][:, 1])
    assert torch.equal(found["head_dense"], base["head_dense"])


def test_what_is_said() -> None:
    assert describe_rows(OLD, NEW) == (
        "head: kept the rows of 2 (earn, acq); new, from random numbers: 2 (grain, ship);"
        " dropped: 1 (crude)"
    )
    assert describe_rows(("1", "0"), ("0", "1.0")).endswith("; none is new; none is dropped")
    assert describe_rows(OLD, ("x", "y")) == ""


def write_rows(path: Path, labels: tuple[str, ...], several: bool = False) -> str:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("text", "label"))
        for number in range(40):
            label = labels[number % len(labels)]
            said = f"{label},{labels[(number + 1) % len(labels)]}" if several else label
            rows.writerow((f"a text about {said} number {number}", said))
    return str(path)


def recipe(folder: Path, model: dict[str, Any], labels: tuple[str, ...], kind: str) -> Any:
    name = "-".join(labels)
    several = kind == "multi_label"
    task: dict[str, Any] = {"name": "classify", "max_tokens": 16, "labels": kind}
    if kind == "ordinal":
        task["order"] = list(labels)
    data = {"name": "labelled_text", "path": write_rows(folder / f"{name}.csv", labels, several)}
    return {
        "name": name,
        "model": model,
        "task": task,
        "data": data,
        "processor": {"name": "bytes"},
        "training": {"batch_size": 8, "steps": 2},
        "machine": {"threads": 1, "compile": False, "precision": "fp32"},
    }


def said(run: Any) -> str:
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return "\n".join(row["message"] for row in rows if row["kind"] == "event")


def check_kept_rows(base: Any, trainer: Any) -> None:
    """Check that the rows of the classes that both runs have are the earlier run's."""
    own = trainer.model.state_dict()
    trainer.close()
    there = base.checkpoints.load(2).model
    old = groundup.load(base.folder).processor.targets.labels
    new = trainer.parts.processor.targets.labels
    heads = [name for name in own if name.startswith("head") and len(own[name]) == 4]
    assert heads
    for name in heads:
        for label in ("acq", "earn"):
            row = own[name][new.index(label)]
            assert torch.equal(row, there[name][old.index(label)]), (name, label)


MODELS: dict[str, dict[str, Any]] = {
    "bag": {"name": "bag_of_ngrams", "width": 4, "buckets": 64},
    "linear": {"name": "bag_of_ngrams", "width": 0, "buckets": 64},
    "transformer": {"name": "transformer_classifier", "layers": 1, "width": 8, "heads": 2},
    "rnn": {"name": "rnn", "width": 8},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("bag", "single"),
        ("linear", "single"),
        ("transformer", "single"),
        ("rnn", "ordinal"),
        ("bag", "multi_label"),
    ],
)
def test_a_run_for_other_classes(tmp_path: Path, model: str, kind: str) -> None:
    base = groundup.train(recipe(tmp_path, MODELS[model], OLD, kind), runs=tmp_path)
    further = recipe(tmp_path, MODELS[model], NEW, kind)
    further = {key: value for key, value in further.items() if key not in ("model", "processor")}
    further["init"] = {"run": str(base.folder)}
    trainer = groundup.trainer(further, runs=tmp_path)
    check_kept_rows(base, trainer)
    assert "new, from random numbers: 2 (grain, ship); dropped: 1 (crude)" in said(trainer.run)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["bert", "hub"])
def test_pretrained_classifiers_for_other_classes(tmp_path: Path, model: str) -> None:
    write_encoder(tmp_path / "bert", "ForSequenceClassification")
    path = tmp_path / "bert" / "config.json"
    values = json.loads(path.read_text())
    names = ("acq", "crude")
    values["id2label"] = dict(enumerate(names))
    values["label2id"] = {name: number for number, name in enumerate(names)}
    path.write_text(json.dumps(values))
    further = recipe(tmp_path, {"name": model}, NEW, "single")
    further["init"] = {"pretrained": str(tmp_path / "bert")}
    del further["processor"]
    trainer = groundup.trainer(further, runs=tmp_path)
    labels = trainer.parts.processor.targets.labels
    trainer.close()
    assert "head: kept the rows of" in said(trainer.run)
    there = load_file(tmp_path / "bert" / "model.safetensors")
    row = there[next(key for key in there if key.endswith("classifier.weight"))][0]
    weight = next(
        v
        for k, v in trainer.model.state_dict().items()
        if k.startswith("head") and v.ndim == 2 and len(v) == 4
    )
    assert torch.equal(weight[labels.index("acq")], row)


PICTURES: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "hidden": [8]},
    "cnn": {"name": "cnn", "channels": [4]},
    "resnet": {"name": "resnet", "layers": [1], "width": 4, "stem": "small"},
    "vit": {"name": "vit", "layers": 1, "width": 8, "heads": 2, "patch": 4},
}


def of_pictures(folder: Path, model: str, classes: str) -> dict[str, Any]:
    return {
        "name": f"{model}-{classes}",
        "model": PICTURES[model],
        "processor": "image",
        "task": "classify",
        "data": {"name": "images", "path": str(digit_folders(folder / classes, classes=classes))},
        "training": {"batch_size": 8, "steps": 1},
        "machine": {"threads": 1, "compile": False, "precision": "fp32"},
    }


@pytest.mark.slow
@pytest.mark.parametrize("model", PICTURES)
def test_a_run_of_pictures_for_other_classes(tmp_path: Path, model: str) -> None:
    base = groundup.train(of_pictures(tmp_path, model, "013"), runs=tmp_path)
    further = of_pictures(tmp_path, model, "123")
    del further["model"], further["processor"]
    trainer = groundup.trainer(further | {"init": {"run": str(base.folder)}}, runs=tmp_path)
    own = trainer.model.state_dict()
    trainer.close()
    there = base.checkpoints.load(1).model
    heads = [name for name in own if name.startswith("head") and len(own[name]) == 3]
    assert len(heads) == 2
    for name in heads:
        # Rows of 0, 1, 3 and of 1, 2, 3.
        assert torch.equal(own[name][[0, 2]], there[name][[1, 2]])
        assert not torch.equal(own[name][1], there[name][1])
    assert "head: kept the rows of 2 (1, 3); new, from random numbers: 1 (2)" in said(trainer.run)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_run_of_hub_for_other_classes(tmp_path: Path, family: str) -> None:
    if family == "bert":
        write_encoder(tmp_path / family)
    else:
        write_tokenizer(tmp_path / family, template=None)
        tiny_model("llama", "ForCausalLM", vocab_size=320).save_pretrained(tmp_path / family)
    first = recipe(tmp_path, {"name": "hub"}, OLD, "single")
    del first["processor"]
    first["init"] = {"pretrained": str(tmp_path / family)}
    base = groundup.train(first, runs=tmp_path)
    further = recipe(tmp_path, {}, NEW, "single")
    del further["processor"], further["model"]
    further["init"] = {"run": str(base.folder)}
    trainer = groundup.trainer(further, runs=tmp_path)
    check_kept_rows(base, trainer)
    assert "new, from random numbers: 2 (grain, ship); dropped: 1 (crude)" in said(trainer.run)
