"""Data that changes after a run began: it neither goes on nor is given back, and says which file
changed, and how."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import groundup
from groundup.core import registry
from groundup.core.errors import DataError
from groundup.core.settings import validate
from groundup.runs import data_fingerprint
from groundup.runs.data_fingerprint import compare, take_fingerprint

_ROWS = [f"text {n},{('good', 'bad')[n % 2]}" for n in range(40)]


def _write(path: Path, rows: list[str]) -> None:
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")


def _swap(rows: list[str]) -> list[str]:
    swapped = (row.replace("good", "GOOD").replace("bad", "good") for row in rows)
    return [row.replace("GOOD", "bad") for row in swapped]


def source(name: str, **settings: Any) -> Any:
    return validate(registry.lookup("data", name), settings, "recipe.data")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_swap, "train/a.csv has other content in the same number of lines, 41"),
        (lambda rows: rows[::-1], "train/a.csv has the same 41 lines in another order"),
        (lambda rows: rows[:-1], "train/a.csv has 40 lines instead of 41"),
        (lambda rows: [*rows, "text,good"], "train/a.csv has 42 lines instead of 41"),
    ],
)
def test_what_changed_is_said(
    change: Callable[[list[str]], list[str]], words: str, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        _write(tmp_path / f"{name}.csv", _ROWS)
    found = source("labelled_text", path=str(tmp_path))
    before = take_fingerprint(found)
    _write(tmp_path / "a.csv", change(_ROWS))
    (said,) = compare(before, take_fingerprint(found, before))
    assert said.startswith(words)


def test_files_that_come_and_go_are_named(tmp_path: Path) -> None:
    _write(tmp_path / "a.csv", _ROWS)
    found = source("labelled_text", path=str(tmp_path))
    before = take_fingerprint(found)
    _write(tmp_path / "b.csv", _swap(_ROWS))
    (tmp_path / "a.csv").unlink()
    after = take_fingerprint(found, before)
    assert compare(before, after) == ["train/a.csv is gone", "train/b.csv is new"]


def test_a_folder_that_was_moved_or_copied_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    _write(tmp_path / "one" / "a.csv", _ROWS)
    before = take_fingerprint(source("labelled_text", path=str(tmp_path / "one")))
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    os.utime(tmp_path / "two" / "a.csv", (1, 1))
    moved = take_fingerprint(source("labelled_text", path=str(tmp_path / "two")), before)
    assert compare(before, moved) == []
    (tmp_path / "two" / "a.csv").rename(tmp_path / "c.csv")
    renamed = take_fingerprint(source("labelled_text", path=str(tmp_path / "c.csv")), before)
    assert compare(before, renamed) == []


def test_a_file_of_the_same_size_and_time_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "a.csv", _ROWS)
    found = source("labelled_text", path=str(tmp_path))
    before = take_fingerprint(found)
    monkeypatch.setattr(data_fingerprint, "_digest", None)
    assert take_fingerprint(found, before) == before


def test_of_very_much_data_pieces_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_fingerprint, "_WHOLE", 1000)
    monkeypatch.setattr(data_fingerprint, "_PIECE", 10)
    _write(tmp_path / "a.csv", _ROWS * 10)
    found = source("labelled_text", path=str(tmp_path))
    before = take_fingerprint(found)
    assert before["train/a.csv"]["sampled"]
    _write(tmp_path / "a.csv", _swap(_ROWS * 10))
    (said,) = compare(before, take_fingerprint(found, before))
    assert said.startswith("train/a.csv has other content of the same size")


def test_a_picture_that_was_put_into_another_class_is_a_change(tmp_path: Path) -> None:
    section = _pictures(tmp_path, 10)
    section.pop("name")
    before = take_fingerprint(source("images", **section))
    (tmp_path / "train" / "c0" / "4.png").rename(tmp_path / "train" / "c1" / "0.png")
    changed = compare(before, take_fingerprint(source("images", **section), before))
    assert changed == ["train/train/c0/4.png is gone", "train/train/c1/0.png is new"]


def _pictures(folder: Path, shade: int) -> dict[str, Any]:
    for n in range(6):
        path = folder / "train" / f"c{n % 2}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), shade + n).save(path)
    return {"name": "images", "path": str(folder)}


def _arrays(folder: Path, shade: int) -> dict[str, Any]:
    np.savez(folder / "a.npz", x=np.full((6, 3), shade), y=np.arange(6) % 2)
    return {"name": "arrays", "path": str(folder / "a.npz")}


def _table(folder: Path, shade: int) -> dict[str, Any]:
    (folder / "a.csv").write_text("\n".join(["x,y", *(f"{shade + n},{n % 2}" for n in range(6))]))
    return {"name": "table", "path": str(folder / "a.csv"), "target": "y"}


def _texts_by_class(folder: Path, shade: int) -> dict[str, Any]:
    for n in range(6):
        path = folder / f"c{n % 2}" / f"{n}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text {shade + n}")
    return {"name": "labelled_text", "path": str(folder)}


def _mixture(folder: Path, shade: int) -> dict[str, Any]:
    (folder / "a.txt").write_text(f"text {shade}")
    part = {"name": "text", "path": str(folder / "a.txt")}
    return {"name": "mixture", "parts": {"prose": part, "docs": {"name": "python_docs"}}}


@pytest.mark.parametrize("make", [_pictures, _arrays, _table, _texts_by_class, _mixture])
def test_every_source_says_what_it_reads(
    make: Callable[[Path, int], dict[str, Any]], tmp_path: Path
) -> None:
    section = make(tmp_path, 10)
    name = section.pop("name")
    before = take_fingerprint(source(name, **section))
    assert before
    make(tmp_path, 20)
    changed = compare(before, take_fingerprint(source(name, **section), before))
    assert 0 < len(changed) <= 6
    assert all("prose/train/a.txt" in each for each in changed) or name != "mixture"


# --------------------------------------------------------------------------------------------- runs
@pytest.mark.slow
def test_a_run_on_changed_data_neither_goes_on_nor_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    _write(path, _ROWS)
    recipe = {
        "name": "small",
        "model": {"name": "bag_of_ngrams"},
        "task": "classify",
        "processor": {"name": "bpe", "vocab_size": 300, "words": True},
        "data": {"name": "labelled_text", "path": str(path), "fraction": 0.3},
        "training": {"batch_size": 8, "steps": 4},
        "machine": {"threads": 1, "compile": False},
    }
    trainer = groundup.trainer(recipe, runs=tmp_path)
    for report in trainer.steps():
        if report.step == 1:
            break
    trainer.save()
    trainer.close()
    folder = trainer.run.folder
    _write(path, _swap(_ROWS))
    said = r"small: the data has changed since this run began: train/rows.csv has other content"
    for begin in (
        lambda: groundup.train(recipe, runs=tmp_path),
        lambda: groundup.api.resume(folder),
        lambda: groundup.trainer(recipe, runs=tmp_path),
    ):
        with pytest.raises(DataError, match=said) as error:
            begin()
        assert (
            f"with name=small-2; one that begins with these weights also has init.run={folder}"
            in str(error.value)
        )
    # what the message says to do
    other = {**recipe, "name": "small-2"}
    assert groundup.train(other, runs=tmp_path).finished
    other = {**recipe, "name": "small-3", "init": {"run": str(folder)}}
    assert groundup.train(other, runs=tmp_path).finished
    _write(path, _ROWS)
    assert groundup.api.resume(folder).finished
    moved = tmp_path / "elsewhere.csv"
    path.rename(moved)
    changed = {**recipe, "data": {**recipe["data"], "path": str(moved)}}
    assert groundup.train(changed, runs=tmp_path).finished
    assert "the same data, data.path=" in (folder / "metrics.jsonl").read_text(encoding="utf-8")
    for begin in (
        lambda: groundup.api.resume(folder, {"data.path": str(tmp_path / "nowhere.csv")}),
        lambda: groundup.train(
            {**recipe, "data": {**recipe["data"], "path": "nowhere.csv"}}, runs=tmp_path
        ),
    ):
        with pytest.raises(DataError, match=r"nowhere.csv: there is no such file"):
            begin()
    assert groundup.train(changed, runs=tmp_path).finished
    _write(moved, _swap(_ROWS))
    with pytest.raises(DataError, match=r"train/elsewhere.csv has other content"):
        groundup.train(changed, runs=tmp_path)
