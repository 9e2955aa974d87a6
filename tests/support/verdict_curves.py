"""The curves of known cause that scripts/verdict_curves.py has trained, as run records and as run
folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from groundup.reports.run_reader import RunRecord

CURVES = Path(__file__).parents[1] / "unit" / "reports" / "curves"
Curve = dict[str, Any]


def load_curves(name: str) -> list[Curve]:
    """Return the curves of a set."""
    lines = (CURVES / f"{name}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def rows_of(curve: Curve) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl."""
    rows = []
    for kind in ("train", "evaluate"):
        names = list(curve[kind])
        for values in zip(*curve[kind].values(), strict=True):
            rows.append({"kind": kind, **dict(zip(names, values, strict=True))})
    return sorted(rows, key=lambda row: row["step"])


def record_of(curve: Curve, *, evaluated: bool = True) -> RunRecord:
    """Return a curve as the record of a run, with or without what its evaluation found."""
    rows = rows_of(curve)
    return RunRecord(
        folder=Path(curve["name"]),
        name=curve["name"],
        recipe=curve["recipe"],
        recipe_text="",
        environment={},
        data_card={"warnings": curve["warnings"]},
        evaluation={"metrics": curve["metrics"]} if evaluated else {},
        train=[row for row in rows if row["kind"] == "train"],
        evaluate=[row for row in rows if row["kind"] == "evaluate"],
    )


def write_run(curve: Curve, folder: Path) -> Path:
    """Write a curve as the folder of a run, and return it."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(json.dumps(curve["recipe"]), "utf-8")
    lines = "\n".join(map(json.dumps, rows_of(curve)))
    (folder / "metrics.jsonl").write_text(f"{lines}\n", "utf-8")
    return folder
