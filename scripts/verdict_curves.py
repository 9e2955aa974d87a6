"""Train small models whose curves have a known cause, as data for the test of the diagnosis in
words (tests/unit/reports/test_verdicts.py).

A curve is a problem (data and a recipe that learns them well) and a cause (what is done to that
recipe or to the data). The rules of groundup/reports were settled on the set ``development``; the
others have other data, models, sizes and seeds, and each was read before the rules were changed by
it.

    python scripts/verdict_curves.py SET OUTPUT.jsonl [NAME ...]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from verdict_sets import SETS, Curve

from groundup import api
from groundup.inference.evaluate_run import evaluate_run
from groundup.recipe.yaml import parse_yaml

_COLUMNS = ("step", "loss", "learning_rate", "accuracy", "plain_loss", "baseline_loss")
_COLUMNS += ("loss_standard_error", "examples", "baseline_accuracy", "bits_per_byte")
_SECTIONS = ("name", "model", "task", "data", "optim", "training", "evaluation", "init")
_METRICS = ("training_accuracy", "accuracy", "accuracy_low_95", "accuracy_high_95")
_METRICS += (
    "baseline_accuracy",
    "baseline_unigram_bits_per_byte",
)


def read_curve(run: Path, cause: str) -> dict[str, Any]:
    """Return what the diagnosis reads of a run."""
    recipe = parse_yaml((run / "recipe.yaml").read_text("utf-8"), "recipe.yaml")
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    curve: dict[str, Any] = {"name": run.name, "cause": cause}
    for kind in ("train", "evaluate"):
        own = [row for row in rows if row["kind"] == kind]
        known = [name for name in _COLUMNS if any(name in row for row in own)]
        curve[kind] = {name: [_shorten(row.get(name)) for row in own] for name in known}
    card = json.loads((run / "data_card.json").read_text("utf-8"))
    curve["warnings"] = card.get("warnings", [])
    evaluation = run / "evaluation.json"
    found = json.loads(evaluation.read_text("utf-8")) if evaluation.exists() else {}
    metrics = found.get("metrics", {})
    curve["metrics"] = {n: _shorten(metrics[n]) for n in _METRICS if n in metrics}
    curve["recipe"] = {section: recipe[section] for section in _SECTIONS if section in recipe}
    return curve


def _shorten(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _train(name: str, curve: Curve, folder: Path) -> dict[str, Any]:
    recipe = {**curve.recipe, "name": name}
    run = folder / "runs" / name
    try:
        api.train(recipe, runs=folder / "runs")
        evaluate_run(run, "last", None, again=True, progress=lambda message: None)
    except Exception as error:  # a loss that is no number ends a run, and is a cause
        print(name, "ended:", error, flush=True)
    return read_curve(run, curve.cause)


def main(chosen: str, output: Path, *only: str) -> None:
    """Train the curves of a set, and append each to a file."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.chdir(folder)
        for name, curve in SETS[chosen]().items():
            if only and not any(part in name for part in only):
                continue
            found = _train(name, curve, folder)
            with output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found, separators=(",", ":")) + "\n")
            print(name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve(), *sys.argv[3:])
