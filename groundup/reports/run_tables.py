"""Find, list and compare run folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from groundup.core.errors import RunError
from groundup.metrics.directions import best_of
from groundup.reports.formatting import compact, duration, label, number, value
from groundup.reports.line_charts import Series, line_chart, smoothed
from groundup.reports.page import render_page
from groundup.reports.run_reader import RunRecord, is_run, read_run

__all__ = [
    "Comparison",
    "RunSummary",
    "compare_runs",
    "comparison_table",
    "list_runs",
    "runs_table",
    "write_comparison",
]

DEPTH = 4  # folders below the root in which runs are looked for
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
    return sorted(
        (_summary(read_run(folder)) for folder in _find(root, DEPTH)),
        key=lambda run: run.changed,
        reverse=True,
    )


def _find(folder: Path, depth: int) -> list[Path]:
    if is_run(folder):
        return [folder]
    if depth == 0:
        return []
    try:
        inner = sorted(
            path
            for path in folder.iterdir()
            if path.is_dir() and not path.is_symlink() and path.name[0] != "."
        )
    except OSError:
        return []
    return [run for path in inner for run in _find(path, depth - 1)]


def _summary(record: RunRecord) -> RunSummary:
    written = [
        path for name in ("metrics.jsonl", "recipe.yaml") if (path := record.folder / name).exists()
    ]
    trained = (record.folder / "model").is_dir()
    return RunSummary(
        folder=record.folder,
        name=record.name,
        model=_part(record, "model"),
        task=_part(record, "task"),
        state="evaluated" if record.metrics else "trained" if trained else "unfinished",
        step=int(record.last("train", "step") or 0),
        tokens=record.last("train", record.unit),
        loss=record.last("train", "loss"),
        validation_loss=record.last("evaluate", "loss"),
        test_loss=record.test_metrics.get("loss"),
        bits_per_byte=_results(record).get("bits_per_byte"),
        seconds=record.last("train", "elapsed_s"),
        changed=written[0].stat().st_mtime if written else 0.0,
    )


def _part(record: RunRecord, kind: str) -> str:
    part = record.recipe.get(kind)
    return str(part.get("name", "")) if isinstance(part, dict) else ""


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Put the results and the recipes of two or more runs side by side.

    Raises:
        RunError: If there are fewer than two folders, or one is not a run.
    """
    return _comparison(_records(folders))


def _records(folders: Sequence[Path]) -> list[RunRecord]:
    if len(folders) < 2:
        raise RunError(
            "runs compare",
            f"got {len(folders)} run; a comparison takes two or more",
            "Name another run folder",
        )
    return [read_run(Path(folder)) for folder in folders]


def _comparison(records: Sequence[RunRecord]) -> Comparison:
    results = [_results(record) for record in records]
    recipes = [_dotted(record.recipe) for record in records]
    keys = list(dict.fromkeys(key for recipe in recipes for key in recipe))
    differing = [
        key for key in keys if len({_plain(recipe.get(key, MISSING)) for recipe in recipes}) > 1
    ]
    return Comparison(
        names=_distinct_names(records),
        results={
            key: [found.get(key) for found in results]
            for key in dict.fromkeys(k for r in results for k in r)
        },
        differences={key: [recipe.get(key) for recipe in recipes] for key in differing},
    )


def _results(record: RunRecord) -> dict[str, float]:
    """The numbers of a run that are worth comparing, by name."""
    validation = record.points("evaluate", "loss")
    unit = record.unit
    rates = sorted(amount for _, amount in record.points("train", f"{unit}_per_s"))
    own: dict[str, float | None] = {
        "step": record.last("train", "step"),
        "training_loss": record.last("train", "loss"),
        "validation_loss": record.last("evaluate", "loss"),
        "best_validation_loss": min((amount for _, amount in validation), default=None),
        **{f"test_{name}": amount for name, amount in record.test_metrics.items()},
        "bits_per_byte": record.last("evaluate", "bits_per_byte"),
        unit: record.last("train", unit),
        f"{unit}_per_s": rates[len(rates) // 2] if rates else None,
        "elapsed_s": record.last("train", "elapsed_s"),
    }
    judged = {
        name: amount for name, amount in record.metrics.items() if isinstance(amount, int | float)
    }
    return {name: amount for name, amount in {**own, **judged}.items() if amount is not None}


def _dotted(section: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(section, dict) or not section:
        return {path: section} if path else {}
    return {
        key: leaf
        for name, inner in section.items()
        for key, leaf in _dotted(inner, f"{path}.{name}" if path else str(name)).items()
    }


def _plain(leaf: Any) -> str:
    return json.dumps(leaf, default=str, ensure_ascii=False, sort_keys=True)


def _distinct_names(records: Sequence[RunRecord]) -> list[str]:
    names = [record.name for record in records]
    folders = [record.folder.name for record in records]
    distinct = [
        name if names.count(name) == 1 else f"{name} ({folder})"
        for name, folder in zip(names, folders, strict=True)
    ]
    return [
        name if distinct.count(name) == 1 else f"{i + 1}: {name}" for i, name in enumerate(distinct)
    ]


# ---------------------------------------------------------------------------------------- rendering
def runs_table(summaries: Sequence[RunSummary]) -> RenderableType:
    """Return the list of runs as a rich table, or a line when there is none."""
    if not summaries:
        return Text("No runs yet. Start one with: groundup train <recipe.yaml>")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold", style="cyan", min_width=22)
    for title in ("model", "task", "state"):
        table.add_column(title, no_wrap=True)
    tested = any(run.test_loss is not None for run in summaries)
    for title in (
        "step",
        "loss",
        "validation",
        *(["test"] if tested else []),
        "bits/byte",
        "time",
        "changed",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    for run in summaries:
        table.add_row(
            *(
                Text(text)
                for text in (str(run.folder), run.model, run.task, run.state, number(run.step))
            ),
            *(
                MISSING if amount is None else number(amount)
                for amount in (
                    run.loss,
                    run.validation_loss,
                    *([run.test_loss] if tested else []),
                    run.bits_per_byte,
                )
            ),
            duration(run.seconds) if run.seconds else MISSING,
            datetime.fromtimestamp(run.changed).strftime("%m-%d %H:%M"),
        )
    return table


def comparison_table(comparison: Comparison) -> RenderableType:
    """Return results (the best of each row in bold green) and recipe differences as rich tables."""
    results = _side_by_side("Results", comparison.names)
    for name, amounts in comparison.results.items():
        best = _best(name, amounts)
        cells = [
            Text(value(name, amount), style="bold green" if amount == best else "")
            for amount in amounts
        ]
        results.add_row(label(name), *cells)
    if not comparison.differences:
        return Group(results, Text("\nThe recipes are the same."))
    differences = _side_by_side("What differs in the recipes", comparison.names)
    for key, leaves in comparison.differences.items():
        differences.add_row(key, *(Text(_leaf(leaf)) for leaf in leaves))
    return Group(results, Text(""), differences)


def _side_by_side(title: str, names: Sequence[str]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    table.add_column("")
    for name in names:
        table.add_column(Text(name), justify="right", overflow="fold")
    return table


def _best(name: str, amounts: Sequence[float | None]) -> float | None:
    """The best value where the metric has a better direction and the runs differ."""
    known = [amount for amount in amounts if amount is not None]
    if (
        len(set(known)) < 2
        or name.startswith(("base_", "baseline_"))
        or name.endswith("_other_question")
    ):
        return None
    return best_of(name, known)


def _leaf(leaf: Any) -> str:
    return MISSING if leaf is None else leaf if isinstance(leaf, str) else _plain(leaf)


def write_comparison(folders: Sequence[Path], output: Path) -> Path:
    """Write a self-contained page with the curves of several runs over each other, and the tables
    of ``compare_runs``.

    Returns:
        ``output``.

    Raises:
        RunError: If there are fewer than two folders, or one is not a run.
    """
    records = _records(folders)
    comparison = _comparison(records)
    results = {
        "columns": ["", *comparison.names],
        "rows": [
            [label(name), *(value(name, amount) for amount in row)]
            for name, row in comparison.results.items()
        ],
        "note": "",
    }
    differences = {
        "columns": ["key", *comparison.names],
        "rows": [
            [key, *(_leaf(leaf) for leaf in row)] for key, row in comparison.differences.items()
        ],
        "note": "",
    }
    charts = _overlays(records, comparison.names)
    page = {"results": results, "differences": differences, "charts": charts}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render_page(" · ".join(comparison.names), [], page), encoding="utf-8")
    return output


def _overlays(records: Sequence[RunRecord], names: Sequence[str]) -> list[str]:
    wanted = (
        ("Training loss", "train", "loss", "loss, running mean"),
        ("Validation loss", "evaluate", "loss", "loss"),
        ("Held-out text", "evaluate", "bits_per_byte", "bits per byte"),
        ("Learning rate", "train", "learning_rate", "learning rate"),
        *(
            ("Throughput", "train", f"{unit}_per_s", f"{unit} per second")
            for unit in {r.unit: 0 for r in records}
        ),
    )
    charts = []
    for title, kind, column, unit in wanted:
        points = [record.points(kind, column) for record in records]
        if column != "learning_rate" and kind == "train":
            points = [smoothed(line) for line in points]
        lines = [
            Series(name, line, f"line-{i % 6}")
            for i, (name, line) in enumerate(zip(names, points, strict=True))
        ]
        charts.append(
            line_chart(
                title, lines, unit=unit, words=compact if column.endswith("_per_s") else number
            )
        )
    return [chart for chart in charts if chart]
