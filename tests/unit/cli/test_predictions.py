"""``groundup predict`` and ``evaluate`` of files, as a user types them."""

from __future__ import annotations

import csv
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_main import groundup

from groundup.contracts.tasks import Picture, Task
from groundup.core.errors import DataError, GroundupError, RecipeError, RunError
from groundup.media.images import read_picture
from groundup.tasks.classify.task import Classify
from groundup.tasks.text_to_text.task import TextToText

WORDS = {"pos": ["good", "great", "fine", "lovely"], "neg": ["bad", "awful", "poor", "dull"]}


@pytest.fixture
def classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a run that tells good words from bad ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    draws = random.Random(0)
    rows = [
        {"text": " ".join(draws.choices(WORDS[label], k=4)), "label": label}
        for label in ("pos", "neg") * 60
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    recipe: dict[str, Any] = {
        "name": "films",
        "model": "bag_of_ngrams",
        "task": "classify",
        "processor": "bytes",
        "data": {"name": "labelled_text", "path": "rows.jsonl"},
        "training": {"batch_size": 16, "steps": 40},
        "machine": {"threads": 1, "compile": False, "precision": "fp32"},
    }
    Path("films.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    groundup("train", "films.yaml")
    return "runs/films"


@pytest.mark.slow
def test_a_file_is_predicted_and_evaluated(
    classifier: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="groundup")
    Path("new.csv").write_text("id,text\n7,good great\n8,bad awful\n9,lovely\n", encoding="utf-8")
    assert "Wrote out.csv: 3 rows" in groundup("predict", classifier, "new.csv", "--out", "out.csv")
    with Path("out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["text"], row["prediction"]) for row in rows] == [
        ("7", "good great", "pos"),
        ("8", "bad awful", "neg"),
        ("9", "lovely", "pos"),
    ]
    for row in rows:
        chances = {name: float(row[f"probability_{name}"]) for name in ("neg", "pos")}
        assert sum(chances.values()) == pytest.approx(1)
        assert max(chances, key=lambda name: chances[name]) == row["prediction"]
    with pytest.raises(RunError, match="exists already"):
        groundup("predict", classifier, "new.csv", "--out", "out.csv")
    printed = groundup("predict", classifier, "new.csv", "--limit", "2")
    assert [json.loads(line)["id"] for line in printed.splitlines()] == ["7", "8"]
    assert "predicted 2 of 3 rows, the first ones" in caplog.text
    # prompts are what they were
    assert groundup("predict", classifier, "good", "bad") == "pos\nneg\n"
    assert groundup("predict", classifier, given="good\nbad\n") == "pos\nneg\n"
    assert groundup("predict", classifier, "-", given="good\nbad\n") == "pos\nneg\n"

    Path("held.csv").write_text("text,label\ngood bad fine fine,pos\nbad,neg\n", encoding="utf-8")
    said = groundup("evaluate", classifier, "--data", "held.csv")
    assert "On 2 held-out examples" in said
    found = json.loads(Path(classifier, "evaluations", "held.json").read_text(encoding="utf-8"))
    assert found["metrics"]["accuracy"] == 1.0
    assert "held.csv: 0 of 2 examples are in the run's training data" in caplog.text
    assert not Path(classifier, "evaluation.json").exists()
    Path("held.csv").write_bytes("text,label\ngood café,pos\nbad,neg\n".encode("cp1252"))
    encoding = "data.encoding=cp1252"
    assert "good café" in groundup("predict", classifier, "held.csv", encoding)
    assert "On 2 held-out" in groundup("evaluate", classifier, "--data", "held.csv", encoding)
    with pytest.raises(RecipeError, match=r"data\.encodding: unknown key; did you mean 'encoding'"):
        groundup("predict", classifier, "held.csv", "data.encodding=cp1252")
    with pytest.raises(GroundupError, match=r"data\.encoding: has no effect without --data"):
        groundup("evaluate", classifier, encoding)
    groundup("evaluate", classifier, "--data", "rows.jsonl", "--limit", "50")
    assert "looking at 50 of 120 rows, drawn with seed 0" in caplog.text
    Path("odd.csv").write_text("text,label\ngood,great\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"odd\.csv row 1.*'great'.*known: neg, pos"):
        groundup("evaluate", classifier, "--data", "odd.csv")


@pytest.mark.slow
def test_folders_and_rows_that_cannot_be_read(
    classifier: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="groundup")
    Path("texts").mkdir()
    for name, text in (("b", "bad bad"), ("a", "good good"), ("c", "fine")):
        Path("texts", f"{name}.txt").write_text(text, encoding="utf-8")
    rows = [json.loads(line) for line in groundup("predict", classifier, "texts").splitlines()]
    assert [(row["file"], row["prediction"]) for row in rows] == [
        ("a.txt", "pos"),
        ("b.txt", "neg"),
        ("c.txt", "pos"),
    ]
    Path("holes.jsonl").write_text('{"text": "good"}\n{"text": ""}\n{"text": "bad"}\n', "utf-8")
    with pytest.raises(DataError, match=r"holes\.jsonl line 2: column 'text' is empty"):
        groundup("predict", classifier, "holes.jsonl")
    # the remedy of that message, as it is written
    said = groundup("predict", classifier, "holes.jsonl", "--on-unreadable", "skip")
    assert [json.loads(line)["prediction"] for line in said.splitlines()] == ["pos", "neg"]
    assert "1 of 3 rows cannot be read and are left out: holes.jsonl line 2" in caplog.text


def test_mistakes_are_said_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", None)
    Path("a.csv").touch()
    for arguments, message in (
        (["none.csv"], r"none\.csv: there is no such file"),
        (["none.xlsx"], r"none\.xlsx: there is no such file"),
        (["a.csv", "b"], r"a\.csv: is one of several; allowed: one file"),
        (["seed=1"], "seed is an option of this command. Write --seed 1"),
        (["x", "data.encoding=gbk"], "data.encoding: has no effect without a file"),
        (["x", "--force"], "--force: has no effect without --out"),
        (["x", "--out", "a.xlsx"], r"a\.xlsx: ends in '\.xlsx'"),
        (["x", "--on-unreadable", "drop"], "--on-unreadable: is 'drop'; allowed: stop, skip"),
    ):
        with pytest.raises(GroundupError, match=message):
            groundup("predict", "runs/none", *arguments)


class _Recorder:
    """A predictor that notes how it is asked."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.options: dict[str, Any] = {}

    def with_decoding(self, options: dict[str, Any]) -> dict[str, Any]:
        return options

    def __call__(self, inputs: list[str], **options: Any) -> list[Any]:
        self.options = options
        best = [{"text": f"{each}!", "score": -0.5} for each in inputs]
        return [[each, each] if "n_best" in options else "plain" for each in best]


def test_how_outputs_are_searched_for_reaches_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = _Recorder(TextToText())
    monkeypatch.setattr("groundup.api.load", lambda *given: predictor)
    search = ["--beams", "5", "--length-penalty", "0.6", "--early-stopping"]
    assert groundup("predict", "run", "a", "b", *search) == "plain\nplain\n"
    assert predictor.options == {
        "beams": 5,
        "length_penalty": 0.6,
        "early_stopping": True,
        "seed": 0,
        "temperature": 0.0,
    }
    limits = ["--min-new-tokens", "2", "--no-repeat-ngram", "3"]
    groundup("predict", "run", "a", *limits, "--ngram-weight", "0.3", "--length-bonus", "1.5")
    named = {"min_new_tokens": 2, "no_repeat_ngram": 3, "ngram_weight": 0.3, "length_bonus": 1.5}
    assert named.items() <= predictor.options.items()
    # A line for each input, whatever is found about it.
    lines = groundup("predict", "run", "a", "b", "--n-best", "2").splitlines()
    assert [[each["text"] for each in json.loads(line)] for line in lines] == [
        ["a!"] * 2,
        ["b!"] * 2,
    ]


def test_options_of_texts_are_refused_where_none_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("groundup.api.load", lambda *given: _Recorder(Classify()))
    assert groundup("predict", "run", "a", "--temperature", "2") == "plain\n"
    problem = "--top-k: has no effect: task classify writes no text. Remove it"
    with pytest.raises(GroundupError, match=problem):
        groundup("predict", "run", "a", "--top-k", "3")


class _Painter(_Recorder):
    """A predictor of pictures."""

    def __call__(self, inputs: list[str], **options: Any) -> list[Any]:
        pixels = np.zeros((2, 3), np.uint8)
        return [Picture(pixels, {"of": each}) for each in inputs]


def test_pictures_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("groundup.api.load", lambda *given: _Painter(TextToText()))
    said = groundup("predict", "run", "a hat", "--out", "hat.png")
    assert said == '{"of": "a hat"}\nWrote hat.png\n'
    assert read_picture(Path("hat.png"), "hat").shape == (2, 3)
    with pytest.raises(RunError, match=r"hat\.png: exists already"):
        groundup("predict", "run", "a hat", "--out", "hat.png")
    groundup("predict", "run", "a", "b", "--out", "two.png")
    assert sorted(path.name for path in Path().glob("two*")) == ["two-1.png", "two-2.png"]
    with pytest.raises(RunError, match=r"two-1\.png: exists already"):
        groundup("predict", "run", "a", "b", "--out", "two.png")
    groundup("predict", "run", "a", "b", "--out", "two.png", "--force")
    caplog.clear()
    groundup("predict", "run", "a hat")
    assert "a picture was made: --out NAME.png keeps it" in caplog.text


def test_what_is_no_picture_is_not_written_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("groundup.api.load", lambda *given: _Recorder(Classify()))
    with pytest.raises(RunError, match=r"hat\.png: is for a picture, but task classify predicts"):
        groundup("predict", "run", "a hat", "--out", "hat.png")
    Path("rows.csv").touch()
    for several in ("rows.csv", "."):
        with pytest.raises(GroundupError, match=rf"for a picture, but {several} is a folder or"):
            groundup("predict", "run", several, "--out", "hat.png")
    assert not Path("hat.png").exists()
