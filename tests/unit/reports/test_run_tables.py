"""Listing and comparing runs, with torn files and folders that are none."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from groundup.core.errors import RunError
from groundup.reports.run_reader import read_run
from groundup.reports.run_tables import (
    compare_runs,
    list_runs,
    make_comparison_table,
    make_runs_table,
)


def make_run(folder: Path, name: str, lr: float, loss: float, at: int = 0, extra: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(
        f"name: {name}\nmodel: {{name: gpt, width: 64}}\noptim: {{lr: {lr}}}\n{extra}", "utf-8"
    )
    rows = [
        {"kind": "train", "step": step, "loss": loss + 1 / step, "tokens_per_s": 10.0 * lr}
        for step in (1, 2, 3)
    ]
    rows.append({"kind": "evaluate", "step": 3, "loss": loss})
    (folder / "metrics.jsonl").write_text(
        "\n".join(json.dumps(row) for row in rows) + '\n{"kind": "train", "st', "utf-8"
    )
    os.utime(folder / "metrics.jsonl", (at, at))
    return folder


def rendered(table: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(table)
    return out.getvalue()


def test_runs_are_found_the_latest_first(tmp_path: Path) -> None:
    make_run(tmp_path / "old", "a", 0.1, 2.0, at=1)
    make_run(tmp_path / "group" / "new", "b", 0.1, 2.0, at=2)
    (tmp_path / "group" / "new" / "model").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "recipe.yaml").write_text("name: x", "utf-8")
    (tmp_path / "file.txt").write_text("x", "utf-8")
    found = list_runs(tmp_path)
    assert [run.name for run in found] == ["b", "a"]
    assert [run.state for run in found] == ["trained", "unfinished"]
    assert (found[0].step, found[0].model, found[0].validation_loss) == (3, "gpt", 2.0)
    text = rendered(make_runs_table(found))
    assert "unfinished" in text
    assert "2.333" in text
    assert "No runs yet" in rendered(make_runs_table([]))


def test_listing_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a folder"):
        list_runs(tmp_path / "runs")


def test_steps_repeated_after_a_resume_count_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "a", 0.1, 2.0)
    rows = [
        {"kind": "train", "step": step, "loss": loss}
        for step, loss in ((1, 9), (2, 8), (3, 7), (2, 6), (3, 5))
    ]
    (run / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    assert read_run(run).points("train", "loss") == [(1.0, 9.0), (2.0, 6.0), (3.0, 5.0)]


def test_a_comparison_names_results_and_the_keys_that_differ(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", "x", 0.1, 2.0),
        make_run(tmp_path / "b", "x", 0.2, 1.5, extra="training: {steps: 3}\n"),
    ]
    comparison = compare_runs(runs)
    assert comparison.names == ["x (a)", "x (b)"]
    assert comparison.differences == {"optim.lr": [0.1, 0.2], "training.steps": [None, 3]}
    assert comparison.results["validation_loss"] == [2.0, 1.5]
    text = rendered(make_comparison_table(comparison))
    assert "optim.lr" in text
    assert "model.width" not in text
    same = rendered(make_comparison_table(compare_runs([runs[0], runs[0]])))
    assert "The recipes are the same" in same
    assert "1: x (a)" in same


def test_a_comparison_takes_two_runs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="a comparison takes two or more"):
        compare_runs([make_run(tmp_path / "a", "x", 0.1, 2.0)])
