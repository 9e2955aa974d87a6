"""A verdict that something is wrong looks unlike one that all is well."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from verdict_curves import load_curves, write_run

import groundup
from groundup.reports.console_summary import print_summary
from groundup.reports.page import write_report

CURVES = {curve["cause"]: curve for curve in load_curves("development")}


@pytest.mark.parametrize(
    ("curve", "begins"), [("fine", "Fine. "), ("overfitting", "! Overfitting. ")]
)
def test_on_a_console_without_colours(curve: str, begins: str) -> None:
    found = {"verdict": curve, "words": "Because.", "advice": ""}
    out = io.StringIO()
    summary = {"runs": [{"name": "run", "evaluation": {"diagnosis": found}}]}
    print_summary(summary, Console(file=out, width=80))
    assert any(line.startswith(begins) for line in out.getvalue().splitlines())


def test_in_a_report(tmp_path: Path) -> None:
    for curve in ("fine", "overfitting"):
        run = write_run(CURVES[curve], tmp_path / curve)
        page = write_report([run], tmp_path / "page.html").read_text("utf-8")
        assert ('<div class="diagnosis wrong">' in page) == ("overfitting" in curve)


def test_the_plain_validation_loss_is_a_line_of_its_own(tmp_path: Path) -> None:
    write_run(CURVES["fine"], tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row in rows:
        if row["kind"] == "evaluate":
            row["plain_loss"] = row["loss"] / 2
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text("utf-8")
    assert "validation, plain" in page


@pytest.mark.slow
def test_a_run_says_its_verdict_when_it_ends(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["training"] = {"batch_size": 4, "steps": 3}
    recipe["evaluation"] = {"every": 1}
    run = groundup.train(recipe, runs=tmp_path)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    said = rows[-1]["message"]
    assert said.startswith(f"{run.folder}: ! Too short. ")
    assert "guessing from the training split" in said
    assert said.endswith("more training.steps, such as 6 instead of 3.")
    assert "Too short." in (run.folder / "report.html").read_text("utf-8")
