"""Find, list and compare run folders."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from groundup.core.errors import RunError
from groundup.metrics.directions import best_of
from groundup.reports.formatting import label, number, value
from groundup.reports.run_reader import RunRecord, is_run, read_run
from groundup.reports.tables import Grid

__all__ = [
    "Comparison",
    "RunSummary",
    "compare_runs",
    "list_runs",
    "make_comparison_table",
    "make_runs_table",
]

# folders below the root in which runs are looked for
DEPTH = 4
MISSING = "–"


@dataclass(frozen=True)
class RunSummary:
    """One line of the list of runs; ``None`` where the run does not say.

    Attributes:
        state: ``"evaluated"``, ``"trained"`` (its model is there) or ``"unfinished"``.
        changed: When its metrics were last written, in seconds since 1970.
        seconds: How long it trained.
    """

    folder: Path
    name: str
    model: str
    task: str
    state: str
    step: int
    tokens: float | None
    loss: float | None
    validation_loss: float | None
    test_loss: float | None
    bits_per_byte: float | None
    seconds: float | None
    changed: float


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        names: One name a run, made different with the folder where two are the same.
        results: Each metric's value in every run.
        differences: Each dotted recipe key that differs, with its value in every run (``None``: not
            there).
    """

    names: list[str]
    results: dict[str, list[float | None]]
    differences: dict[str, list[Any]]


def list_runs(root: Path) -> list[RunSummary]:
    """Return the runs below a folder, the latest first. Folders that are not runs are passed over.

    Raises:
        RunError: If the folder does not exist.
    """
    if not root.is_dir():
        raise RunError(
            str(root),
            "is not a folder",
            "Train something first, or name the folder that holds your runs",
        )
    found = [_summarise(read_run(folder)) for folder in _find_runs(root, DEPTH)]
    return sorted(found, key=lambda run: run.changed, reverse=True)


def _find_runs(folder: Path, depth: int) -> list[Path]:
    if is_run(folder):
        return [folder]
    if depth == 0:
        return []
    try:
        # a link may lead back to a folder above it
        inner = sorted(
            path
            for path in folder.iterdir()
            if path.is_dir() and not path.is_symlink() and path.name[0] != "."
        )
    except OSError:
        # a folder of somebody else's
        return []
    return [run for path in inner for run in _find_runs(path, depth - 1)]


def _summarise(record: RunRecord) -> RunSummary:
    return RunSummary(
        folder=record.folder,
        name=record.name,
        model=str(record.section("model").get("name", "")),
        task=str(record.section("task").get("name", "")),
        state=_state_of(record),
        step=int(record.last("train", "step") or 0),
        tokens=record.last("train", record.unit),
        loss=record.last("train", "loss"),
        validation_loss=record.last("evaluate", "loss"),
        test_loss=record.test_metrics.get("loss"),
        bits_per_byte=_results(record).get("bits_per_byte"),
        seconds=record.last("train", "elapsed_s"),
        changed=_last_change(record.folder),
    )


def _state_of(record: RunRecord) -> str:
    if record.metrics:
        return "evaluated"
    # the model's folder is written at the end of a run
    return "trained" if (record.folder / "model").is_dir() else "unfinished"


def _last_change(folder: Path) -> float:
    # a run that failed before its first step has a recipe only
    for name in ("metrics.jsonl", "recipe.yaml"):
        if (folder / name).exists():
            return (folder / name).stat().st_mtime
    return 0.0


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Put the results and the recipes of two or more runs side by side.

    Raises:
        RunError: If there are fewer than two folders, or one is not a run.
    """
    if len(folders) < 2:
        raise RunError(
            "runs compare",
            f"got {len(folders)} run, but a comparison takes two or more",
            "Name another run folder",
        )
    records = [read_run(Path(folder)) for folder in folders]
    results = [_results(record) for record in records]
    recipes = [_flatten(record.recipe) for record in records]
    return Comparison(
        names=_distinct_names(records),
        results={key: [found.get(key) for found in results] for key in _keys_of(results)},
        differences={
            key: [recipe.get(key) for recipe in recipes]
            for key in _keys_of(recipes)
            # MISSING: a key that one recipe lacks differs from one that is null
            if len({_as_json(recipe.get(key, MISSING)) for recipe in recipes}) > 1
        },
    )


def _keys_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return all keys, in the order in which they are first seen."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _results(record: RunRecord) -> dict[str, float]:
    """Return the numbers of a run that are worth comparing, by name."""
    validation = record.points("evaluate", "loss")
    unit = record.unit
    # the median: the first steps are slower
    rates = sorted(amount for _, amount in record.points("train", f"{unit}_per_s"))
    own: dict[str, float | None] = {
        "step": record.last("train", "step"),
        "training_loss": record.last("train", "loss"),
        "validation_loss": record.last("evaluate", "loss"),
        "best_validation_loss": min((amount for _, amount in validation), default=None),
        **{f"test_{name}": amount for name, amount in record.test_metrics.items()},
        "bits_per_byte": record.last("evaluate", "bits_per_byte"),
        unit: record.last("train", unit),
        f"{unit}_per_s": next(iter(rates[len(rates) // 2 :]), None),
        "elapsed_s": record.last("train", "elapsed_s"),
    }
    evaluated = {
        name: amount for name, amount in record.metrics.items() if isinstance(amount, int | float)
    }
    return {name: amount for name, amount in {**own, **evaluated}.items() if amount is not None}


def _flatten(section: dict[str, Any]) -> dict[str, Any]:
    """Return the leaves of nested settings by their dotted keys."""
    leaves: dict[str, Any] = {}
    for name, inner in section.items():
        if isinstance(inner, dict) and inner:
            leaves |= {f"{name}.{key}": leaf for key, leaf in _flatten(inner).items()}
        else:
            leaves[str(name)] = inner
    return leaves


def _as_json(leaf: Any) -> str:
    return json.dumps(leaf, default=str, ensure_ascii=False, sort_keys=True)


def _distinct_names(records: Sequence[RunRecord]) -> list[str]:
    names = Counter(record.name for record in records)
    told_apart = []
    for record in records:
        alone = names[record.name] == 1
        told_apart.append(record.name if alone else f"{record.name} ({record.folder.name})")
    # two roots may hold folders of one name: then only the place in the list differs
    left = Counter(told_apart)
    return [
        name if left[name] == 1 else f"{place}: {name}" for place, name in enumerate(told_apart, 1)
    ]


# ---------------------------------------------------------------------------------------- rendering
def make_runs_table(summaries: Sequence[RunSummary]) -> RenderableType:
    """Return the list of runs as a rich table, or a line when there is none."""
    if not summaries:
        return Text("No runs yet. Start one with: groundup train <recipe.yaml>")
    # few runs have a test split: without one, its column would only take room
    tested = any(run.test_loss is not None for run in summaries)
    tests = ("test",) if tested else ()
    columns = ("run", "model", "task", "state")
    numbers = ("step", "loss", "validation", *tests, "bits/byte", "time", "changed")
    rows = []
    for run in summaries:
        losses = [run.loss, run.validation_loss, *([run.test_loss] if tested else [])]
        amounts = [value("", amount) for amount in (*losses, run.bits_per_byte)]
        changed = datetime.fromtimestamp(run.changed).strftime("%m-%d %H:%M")
        facts = [run.model, run.task, run.state, number(run.step), *amounts]
        cells = [Text(fact) for fact in (*facts, value("elapsed_s", run.seconds or None), changed)]
        rows.append([Text(str(run.folder), style="cyan"), *cells])
    first = len(columns)
    holds = frozenset(range(first, first + len(numbers)))
    return Grid("", (*columns, *numbers), rows, holds)


def make_comparison_table(comparison: Comparison) -> RenderableType:
    """Return results (the best of each row in bold green) and recipe differences as rich tables."""
    rows = []
    for name, amounts in comparison.results.items():
        best = _find_best(name, amounts)
        cells = [Text(value(name, amount)) for amount in amounts]
        for cell, amount in zip(cells, amounts, strict=True):
            if amount is not None and amount == best:
                cell.stylize("bold green")
        rows.append([Text(label(name)), *cells])
    names = ("", *comparison.names)
    results = Grid("Results", names, rows, frozenset(range(1, len(names))))
    if not comparison.differences:
        return Group(results, Text("\nThe recipes are the same."))
    leaves = [[key, *map(_in_words, row)] for key, row in comparison.differences.items()]
    return Group(results, Text(""), Grid.of("What differs in the recipes", names, leaves))


def _find_best(name: str, amounts: Sequence[float | None]) -> float | None:
    """Return the best value where the metric has a better direction and the runs differ."""
    known = [amount for amount in amounts if amount is not None]
    if (
        len(set(known)) < 2
        or name.startswith(("base_", "baseline_"))
        or name.endswith("_other_question")
    ):
        return None
    return best_of(name, known)


def _in_words(leaf: Any) -> str:
    if leaf is None:
        return MISSING
    return leaf if isinstance(leaf, str) else _as_json(leaf)
