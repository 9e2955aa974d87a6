"""The summary printed at the end: what the models reached compared with the baselines, their
answers, what to type next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from groundup.reports.formatting import (
    duration,
    interval_95,
    is_number,
    label,
    list_baselines,
    list_changes,
    name_guess,
    number,
    value,
)

__all__ = ["print_summary"]

# characters of the longest bar
BAR = 26
ROWS = 10
# characters of a cell that are looked at; the column then cuts them to its width
CELL = 300
# characters of a text that has the width to itself
PROSE = 200
# characters from which a text does not fit next to others
LONG = 40
# columns of a terminal in which a table of short cells need not be stretched
WIDE = 160
_HEADLINES = ("accuracy", "subset_accuracy")
# Each measure with what guessing reaches right below it.
_CLASSIFIER = (
    *_HEADLINES,
    "baseline_accuracy",
    "training_accuracy",
    "training_subset_accuracy",
    "mean_absolute_error",
    "baseline_mean_absolute_error",
    "quadratic_weighted_kappa",
    "top_5_accuracy",
    "balanced_accuracy",
    "macro_f1",
    "micro_f1",
    "macro_average_precision",
    "auroc",
    "macro_auroc",
    "log_loss",
    "expected_calibration_error",
)


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
    for title in ("Report", "Next"):
        text = summary.get(title.lower())
        if text:
            line = Text.assemble((f"{title:<8}", "bold"), (str(text), "cyan"))
            # a path or a command that the console broke could not be copied
            console.print(line, soft_wrap=True)


def _print_run(run: Mapping[str, Any], console: Console) -> None:
    evaluation = run.get("evaluation") or {}
    metrics = evaluation.get("metrics") or {}
    heading = Text(str(run.get("name", "run")), "bold cyan", overflow="ellipsis")
    if is_number(run.get("seconds")):
        heading.append(f"  {duration(run['seconds'])}", "dim")
    console.print(Rule(heading, align="left", style="dim"))
    for part in (
        _draw_baselines(metrics),
        _list_before_after(metrics),
        _list_classifier(metrics) or _list_other_metrics(metrics),
    ):
        if part is not None:
            console.print(part)
            console.print()
    for table in evaluation.get("tables") or []:
        if table.get("printed", True) and table.get("rows"):
            _print_table(table, console)
    _print_diagnosis(evaluation.get("diagnosis"), console)


def _print_table(table: Mapping[str, Any], console: Console) -> None:
    if _is_prose(table):
        console.print(_stack_rows(table))
    else:
        console.print(_lay_out(table, console.width))
    if table.get("note"):
        console.print(Text(str(table["note"]), style="dim"))
    console.print()


def _print_diagnosis(found: Any, console: Console) -> None:
    if not isinstance(found, Mapping):
        return
    verdict = str(found.get("verdict", "")).capitalize()
    console.print(Text.assemble((f"{verdict}. ", "bold"), str(found.get("words", ""))))
    if found.get("advice"):
        console.print(Text(f"To try: {found['advice']}."))
    console.print()


def _draw_baselines(metrics: Mapping[str, Any]) -> RenderableType | None:
    """Draw a bar each for the model and what compressors and n-grams reach."""
    rows = list_baselines(metrics)
    if not rows:
        return None
    longest = max(amount for _, amount, _ in rows)
    table = _titled("Bits per byte of held-out text (lower is better)")
    table.show_header = False
    for name, amount, own in rows:
        style, colour = ("bold green", "green") if own else ("", "dim")
        bar = "█" * max(1, round(BAR * amount / longest))
        table.add_row(Text(name, style), Text(bar, colour), Text(f"{amount:.3f}", style))
    return table


def _list_before_after(metrics: Mapping[str, Any]) -> RenderableType | None:
    rows = list_changes(metrics)
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


def _list_classifier(metrics: Mapping[str, Any]) -> RenderableType | None:
    """List what a classifier reached: each measure with its interval, then what guessing
    reaches."""
    if "held_out_examples" not in metrics or not metrics.keys() & set(_HEADLINES):
        return None
    table = _titled(f"On {number(metrics['held_out_examples'])} held-out examples")
    table.show_header = False
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("", style="dim")
    for name in _CLASSIFIER:
        if not is_number(metrics.get(name)):
            continue
        words = label(name)
        if name.startswith("baseline_"):
            words = name_guess(name.removeprefix("baseline_"))
        interval = interval_95(name, metrics)
        style = "bold green" if name in _HEADLINES else ""
        table.add_row(
            Text(words, style),
            Text(value(name, metrics[name]), style),
            Text(f"95%: {interval}" if interval else ""),
        )
    return table


def _list_other_metrics(metrics: Mapping[str, Any]) -> RenderableType | None:
    """List what neither the bars nor the pairs have shown."""
    shown = set(_paired_names(metrics))
    if list_baselines(metrics):
        shown.add("bits_per_byte")
    left = {
        name: amount
        for name, amount in metrics.items()
        if name not in shown
        and not name.startswith(("base_", "baseline_"))
        and name.removesuffix("_other_question") not in shown
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


def _paired_names(metrics: Mapping[str, Any]) -> Iterator[str]:
    for name in metrics:
        if f"base_{name}" in metrics or f"{name}_other_question" in metrics:
            yield name


def _lay_out(found: Mapping[str, Any], width: int) -> RenderableType:
    """Return at most ten rows, one line each: text columns share the width and end in an
    ellipsis."""
    columns = _column_names(found)
    rows = list(found.get("rows") or [])
    table = _titled(str(found.get("title", "")))
    table.expand = width < WIDE or any(_is_long(cell) for row in rows for cell in row)
    for index, column in enumerate(columns):
        # rows may be shorter than the heading: the file may be a user's own
        texts = any(isinstance(row[index], str) for row in rows if len(row) > index)
        options: dict[str, Any] = {"justify": "left" if texts else "right"}
        if texts and table.expand:
            options["ratio"] = 1
        table.add_column(Text(column), no_wrap=True, overflow="ellipsis", **options)
    for row in rows[:ROWS]:
        table.add_row(*(Text(_one_line(cell)) for cell in row[: len(columns)]))
    _count_the_rest(table, rows)
    return table


def _is_prose(found: Mapping[str, Any]) -> bool:
    """Return whether several columns hold texts too long to read next to each other, such as a
    question and its answers."""
    rows = found.get("rows") or []
    return len({index for row in rows for index, cell in enumerate(row) if _is_long(cell)}) > 2


def _is_long(cell: Any) -> bool:
    return isinstance(cell, str) and len(cell) > LONG


def _stack_rows(found: Mapping[str, Any]) -> RenderableType:
    """Return at most ten rows, one below the other: the first column as a heading, the others with
    their names."""
    columns = _column_names(found)
    rows = list(found.get("rows") or [])
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
    _count_the_rest(table, rows)
    return table


def _column_names(found: Mapping[str, Any]) -> list[str]:
    return [str(column) for column in found.get("columns") or []]


def _count_the_rest(table: Table, rows: list[Any]) -> None:
    if len(rows) > ROWS:
        table.caption = f"{len(rows) - ROWS} more in the report"


def _titled(title: str) -> Table:
    # as Text: brackets in a user's title would be read as markup
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
