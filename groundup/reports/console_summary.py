"""The summary printed at the end: what the models reached beside the baselines, their answers, what
to type next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from groundup.reports.formatting import (
    baselines,
    changes,
    duration,
    guess,
    is_number,
    label,
    number,
    value,
)

__all__ = ["print_summary"]

BAR = 26
ROWS = 10
CELL = 300  # characters of a cell that are looked at; the column then cuts them to its width
PROSE = 200  # characters of a text that has the width to itself
_CLASSIFIER = (
    *(
        "accuracy",
        "subset_accuracy",
        "baseline_accuracy",
        "training_accuracy",
        "training_subset_accuracy",
    ),
    *("mean_absolute_error", "baseline_mean_absolute_error", "quadratic_weighted_kappa"),
    *("top_5_accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "macro_average_precision"),
    *("auroc", "macro_auroc", "log_loss", "expected_calibration_error"),
)
LONG = 40  # characters from which a text does not fit beside others


def print_summary(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what ``summary.json`` holds.

    Args:
        summary:
            ``{"runs": [{"name", "folder", "evaluation": {"metrics", "tables"}, "seconds"}],
            "report": path, "next": command}``. Anything may be missing; whatever metrics and tables
            there are, are shown.
        console: Where to print; standard output by default.
    """
    console = console or Console(highlight=False)
    for run in summary.get("runs") or []:
        _print_run(run, console)
    console.print(Rule(style="dim"))
    for title, text in (("Report", summary.get("report")), ("Next", summary.get("next"))):
        if text:
            console.print(
                Text.assemble((f"{title:<8}", "bold"), (str(text), "cyan")), soft_wrap=True
            )


def _print_run(run: Mapping[str, Any], console: Console) -> None:
    evaluation = run.get("evaluation") or {}
    metrics = evaluation.get("metrics") or {}
    seconds = run.get("seconds")
    spent = f"  {duration(seconds)}" if isinstance(seconds, int | float) else ""
    heading = Text.assemble(
        (str(run.get("name", "run")), "bold cyan"), (spent, "dim"), overflow="ellipsis"
    )
    console.print(Rule(heading, align="left", style="dim"))
    for part in (
        _baseline_bars(metrics),
        _before_after(metrics),
        _classifier(metrics) or _other_metrics(metrics),
    ):
        if part is not None:
            console.print(part)
            console.print()
    for table in evaluation.get("tables") or []:
        if not table.get("printed", True) or not table.get("rows"):
            continue
        console.print(_stacked(table) if _is_prose(table) else _table(table, console.width))
        if table.get("note"):
            console.print(Text(str(table["note"]), style="dim"))
        console.print()
    _print_diagnosis(evaluation.get("diagnosis"), console)


def _print_diagnosis(found: Any, console: Console) -> None:
    if not isinstance(found, Mapping):
        return
    verdict = str(found.get("verdict", "")).capitalize()
    console.print(Text.assemble((f"{verdict}. ", "bold"), str(found.get("words", ""))))
    if found.get("advice"):
        console.print(Text(f"To try: {found['advice']}."))
    console.print()


def _baseline_bars(metrics: Mapping[str, Any]) -> RenderableType | None:
    rows = baselines(dict(metrics))
    if not rows:
        return None
    longest = max(amount for _, amount, _ in rows)
    table = _titled("Bits per byte of held-out text (lower is better)")
    table.show_header = False
    for name, amount, own in rows:
        style = "bold green" if own else ""
        bar = "█" * max(1, round(BAR * amount / longest))
        table.add_row(
            Text(name, style), Text(bar, "green" if own else "dim"), Text(f"{amount:.3f}", style)
        )
    return table


def _before_after(metrics: Mapping[str, Any]) -> RenderableType | None:
    rows = changes(dict(metrics))
    if not rows:
        return None
    table = _titled("Before and after")
    table.add_column("")
    for title in ("before", "after", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        change = Text(f"{row.percent:+.1f}%", style="green" if row.better else "red")
        table.add_row(Text(row.label), number(row.before), number(row.after), change)
    return table


def _classifier(metrics: Mapping[str, Any]) -> RenderableType | None:
    """What a classifier reached, in a few lines: each measure with its interval, after what
    guessing reaches."""
    if "held_out_examples" not in metrics or not {"accuracy", "subset_accuracy"} & set(metrics):
        return None
    table = _titled(f"On {number(metrics['held_out_examples'])} held-out examples")
    table.show_header = False
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("", style="dim")
    for name in _CLASSIFIER:
        if is_number(metrics.get(name)):
            low, high = (metrics.get(f"{name}_{end}_95") for end in ("low", "high"))
            sure = (
                f"95%: {number(low)} to {number(high)}"
                if is_number(low) and is_number(high)
                else ""
            )
            guessed = name.removeprefix("baseline_") if name.startswith("baseline_") else ""
            words = guess(guessed) if guessed else label(name)
            style = "bold green" if name in _CLASSIFIER[:2] else ""
            table.add_row(Text(words, style), Text(value(name, metrics[name]), style), Text(sure))
    return table


def _other_metrics(metrics: Mapping[str, Any]) -> RenderableType | None:
    """What neither the bars nor the pairs have shown."""
    paired = {
        name
        for name in metrics
        for twin in (f"base_{name}", f"{name}_other_question")
        if twin in metrics
    }
    barred = {"bits_per_byte"} if baselines(dict(metrics)) else set()
    left = {
        name: amount
        for name, amount in metrics.items()
        if name not in paired | barred
        and not name.startswith(("base_", "baseline_"))
        and name.removesuffix("_other_question") not in paired
    }
    if not left:
        return None
    table = _titled("Measures")
    table.show_header = False
    table.add_column("")
    table.add_column("", justify="right")
    for name, amount in left.items():
        table.add_row(Text(label(name)), Text(value(name, amount)))
    return table


def _table(found: Mapping[str, Any], width: int) -> RenderableType:
    """At most ten rows, one line each: text columns share the width and end in an ellipsis."""
    columns, rows = (
        [str(column) for column in found.get("columns") or []],
        list(found.get("rows") or []),
    )
    table = _titled(str(found.get("title", "")))
    table.expand = width < 160 or any(
        isinstance(cell, str) and len(cell) > LONG for row in rows for cell in row
    )
    for index, column in enumerate(columns):
        texts = any(isinstance(row[index], str) for row in rows if len(row) > index)
        table.add_column(
            Text(column),
            justify="left" if texts else "right",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if texts and table.expand else None,
        )
    for row in rows[:ROWS]:
        table.add_row(*(Text(_one_line(cell)) for cell in row[: len(columns)]))
    if len(rows) > ROWS:
        table.caption = f"{len(rows) - ROWS} more in the report"
    return table


def _is_prose(found: Mapping[str, Any]) -> bool:
    """Whether several columns hold texts too long to read beside each other, such as a question and
    its answers."""
    cells = [(index, cell) for row in found.get("rows") or [] for index, cell in enumerate(row)]
    return len({index for index, cell in cells if isinstance(cell, str) and len(cell) > LONG}) > 2


def _stacked(found: Mapping[str, Any]) -> RenderableType:
    """At most ten rows, one below the other: the first column as a heading, the others with their
    names."""
    columns, rows = (
        [str(column) for column in found.get("columns") or []],
        list(found.get("rows") or []),
    )
    table = _titled(str(found.get("title", "")))
    table.show_header = False
    table.add_column("", style="dim", no_wrap=True)
    table.add_column("", overflow="fold")
    for row in rows[:ROWS]:
        for index, (column, cell) in enumerate(zip(columns, row, strict=False)):
            text = Text(_one_line(cell), style="" if index else "bold")
            text.truncate(PROSE, overflow="ellipsis")
            table.add_row(Text(column), text)
        table.add_row("", "")
    if len(rows) > ROWS:
        table.caption = f"{len(rows) - ROWS} more in the report"
    return table


def _titled(title: str) -> Table:
    return Table(
        title=Text(title, style="bold"),
        title_justify="left",
        caption_justify="left",
        box=None,
        pad_edge=False,
        header_style="dim",
        padding=(0, 2, 0, 0),
    )


def _one_line(cell: Any) -> str:
    return " ".join(value("", cell)[:CELL].split())
