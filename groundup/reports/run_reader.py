"""What a run folder says, read leniently: for reports and lists. A half-written file costs its own
part only."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.core.errors import RecipeError, RunError
from groundup.recipe.renamed import upgrade
from groundup.recipe.yaml import parse_yaml
from groundup.reports.formatting import is_number

__all__ = ["RunRecord", "is_run", "read_run"]

Row = dict[str, Any]
_ALIASES = {"learning_rate": "lr"}


@dataclass(frozen=True)
class RunRecord:
    """The files of a run as plain values; whatever is missing or unreadable is empty.

    Attributes:
        train, evaluate, test, sample, event: The rows of ``metrics.jsonl`` by kind, less those that
            a resume repeated.
        unreadable_lines: Lines of ``metrics.jsonl`` that are not JSON, such as a last line cut off
            by a crash.
    """

    folder: Path
    name: str
    recipe: Row
    recipe_text: str
    environment: Row
    data_card: Row
    evaluation: Row
    train: list[Row] = field(default_factory=list)
    evaluate: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)
    sample: list[Row] = field(default_factory=list)
    event: list[Row] = field(default_factory=list)
    unreadable_lines: int = 0

    def section(self, name: str) -> Row:
        """Return a section of the recipe, empty where it is missing or a single value."""
        return _as_object(self.recipe.get(name))

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of ``evaluation.json``."""
        return _as_object(self.evaluation.get("metrics"))

    @property
    def test_metrics(self) -> dict[str, float]:
        """What ``evaluation.test`` found at the run's end; the metric that checkpoints are chosen
        by first."""
        best = self.section("checkpoints").get("best_metric")
        found = {
            name: float(value)
            for row in self.test[-1:]
            for name, value in row.items()
            if name != "step" and is_number(value)
        }
        return dict(sorted(found.items(), key=lambda pair: pair[0] != best))

    @property
    def tables(self) -> list[Row]:
        """The well-formed tables of ``evaluation.json``, each with title, columns, rows and
        note."""
        return [
            {
                "title": str(table.get("title") or "Table"),
                "columns": [str(column) for column in table["columns"]],
                "rows": [row for row in table["rows"] if isinstance(row, list)],
                "note": str(table.get("note") or ""),
            }
            for table in _objects_in(self.evaluation.get("tables"))
            if isinstance(table.get("columns"), list) and isinstance(table.get("rows"), list)
        ]

    @property
    def figures(self) -> list[Row]:
        """The figures of ``evaluation.json``, each with kind, title, content and note."""
        return _objects_in(self.evaluation.get("figures"))

    @property
    def unit(self) -> str:
        """What the run's task counts, such as ``tokens``: the name of the column that has a rate
        next to it."""
        for row in self.train[-1:]:
            for name in row:
                if name.endswith("_per_s") and name != "flops_per_s":
                    return name.removesuffix("_per_s")
        return "tokens"

    def rows(self, kind: str) -> list[Row]:
        """Return the rows of ``metrics.jsonl`` of a kind."""
        kinds = {"train": self.train, "evaluate": self.evaluate, "test": self.test}
        return {**kinds, "sample": self.sample, "event": self.event}[kind]

    def points(self, kind: str, name: str) -> list[tuple[float, float]]:
        """Return (step, value) of one column of ``metrics.jsonl``, without missing or non-finite
        values."""
        rows = self.rows(kind)
        # runs of before the field's name was written out call it otherwise
        key = name if any(name in row for row in rows) else _ALIASES.get(name, name)
        return [(float(row["step"]), float(row[key])) for row in rows if is_number(row.get(key))]

    def last(self, kind: str, name: str) -> float | None:
        """Return the last finite value of a column, if there is one."""
        for _, amount in self.points(kind, name)[-1:]:
            return amount
        return None


def is_run(folder: Path) -> bool:
    """Return whether a folder looks like a run: it has a recipe and has begun to log."""
    return (folder / "recipe.yaml").is_file() and (
        (folder / "metrics.jsonl").is_file() or (folder / "environment.json").is_file()
    )


def read_run(folder: Path) -> RunRecord:
    """Read a run folder.

    Raises:
        RunError: If the folder is missing or is not a run.
    """
    if not folder.is_dir():
        raise RunError(str(folder), "is not a folder", "List the runs with: groundup runs list")
    if not is_run(folder):
        raise RunError(
            str(folder),
            "is not a run: it has no recipe.yaml next to a metrics.jsonl",
            "Name a folder made by groundup train",
        )
    text = _read_text(folder / "recipe.yaml")
    recipe = _parse_recipe(text)
    rows, unreadable = _parse_rows(_read_text(folder / "metrics.jsonl"))
    return RunRecord(
        folder=folder,
        name=str(recipe.get("name") or folder.name),
        recipe=recipe,
        recipe_text=text,
        environment=_read_object(folder / "environment.json"),
        data_card=_read_object(folder / "data_card.json"),
        evaluation=_read_object(folder / "evaluation.json"),
        unreadable_lines=unreadable,
        event=[row for row in rows if row.get("kind") == "event"],
        **{kind: _without_repeats(rows, kind) for kind in ("train", "evaluate", "test", "sample")},
    )


def _as_object(found: Any) -> Row:
    """Return what JSON or YAML holds where an object belongs; an empty one where it is something
    else."""
    return found if isinstance(found, dict) else {}


def _objects_in(found: Any) -> list[Row]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _read_text(path: Path) -> str:
    # a crash may have cut a letter of several bytes
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _read_object(path: Path) -> Row:
    try:
        return _as_object(json.loads(_read_text(path) or "{}"))
    except ValueError:
        return {}


def _parse_recipe(text: str) -> Row:
    try:
        return upgrade(_as_object(parse_yaml(text, "recipe.yaml")))
    except RecipeError:
        return {}


def _parse_rows(text: str) -> tuple[list[Row], int]:
    """Return the rows of ``metrics.jsonl``, and how many lines are none."""
    rows: list[Row] = []
    unreadable = 0
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            # the last line, where a crash cut it off
            row = None
        if isinstance(row, dict) and is_number(row.get("step")):
            rows.append(row)
        else:
            unreadable += 1
    return rows, unreadable


def _without_repeats(rows: list[Row], kind: str) -> list[Row]:
    """Drop the steps that were trained again after a resume: the later row is the one the weights
    come from."""
    kept: list[Row] = []
    for row in rows:
        if row.get("kind") != kind:
            continue
        while kept and (
            kept[-1]["step"] > row["step"] or (kept[-1]["step"] == row["step"] and kind != "sample")
        ):
            kept.pop()
        kept.append(row)
    return kept
