"""The summary printed at the end: what the models reached compared with the baselines, their
answers, what to type next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import shorten
from typing import Any

from rich.console import Console, RenderableType
from rich.rule import Rule
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
from groundup.reports.tables import GAP, Grid, can_print

__all__ = ["print_summary"]

# characters of the longest bar
BAR = 26
ROWS = 10
# characters of a cell that are looked at
CELL = 300
# characters of a text that has the width to itself
PROSE = 200
# characters from which a text does not fit next to others
LONG = 40
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
_REGRESSION = ("rmse", "baseline_rmse", "mae", "baseline_mae", "r2")


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
    console.print(_rule(console))
    for title in ("Report", "Next"):
        text = summary.get(title.lower())
        if text:
            line = Text.assemble((f"{title:<8}", "bold"), (str(text), "cyan"))
            # a path or a command that the console broke could not be copied
            console.print(line, soft_wrap=True)


def _print_run(run: Mapping[str, Any], console: Console) -> None:
    evaluation = run.get("evaluation") or {}
    metrics = evaluation.get("metrics") or {}
    heading = Text(str(run.get("name", "run")), "bold cyan", overflow="fold")
    if is_number(run.get("seconds")):
        heading.append(f"  {duration(run['seconds'])}", "dim")
    if heading.cell_len < console.width - 4:
        console.print(_rule(console, heading))
    else:  # a rule would cut it
        console.print(_rule(console), heading, sep="\n")
    for part in (
        _draw_baselines(metrics, console),
        _list_before_after(metrics),
        _list_scores(metrics) or _list_other_metrics(metrics),
    ):
        if part is not None:
            console.print(part)
            console.print()
    for table in evaluation.get("tables") or []:
        if table.get("printed", True) and table.get("rows"):
            _print_table(table, console)
    _print_diagnosis(evaluation.get("diagnosis"), console)


def _rule(console: Console, title: Text | str = "") -> Rule:
    line = "─" if can_print(console, "─") else "-"
    return Rule(title, characters=line, align="left", style="dim")


def _print_table(table: Mapping[str, Any], console: Console) -> None:
    console.print(_stack_rows(table) if _is_prose(table) else _lay_out(table))
    if table.get("note"):
        console.print(Text(str(table["note"]), style="dim"))
    console.print()


def _print_diagnosis(found: Any, console: Console) -> None:
    if not isinstance(found, Mapping):
        return
    verdict = str(found.get("verdict", "")).capitalize()
    # by a sign as well as a colour: not every console has colours
    mark = (f"{verdict}. ", "bold green")
    if verdict != "Fine":
        mark = (f"! {verdict}. ", "bold red")
    console.print(Text.assemble(mark, str(found.get("words", ""))))
    if found.get("advice"):
        console.print(Text(f"To try: {found['advice']}."))
    console.print()


def _draw_baselines(metrics: Mapping[str, Any], console: Console) -> RenderableType | None:
    """Draw a bar each for the model and what compressors and n-grams reach."""
    rows = list_baselines(metrics)
    if not rows:
        return None
    longest = max(amount for _, amount, _ in rows)
    names = max(len(name) for name, _, _ in rows)
    # next to the names and the numbers, of up to seven characters
    room = max(4, min(BAR, console.width - names - 7 - 2 * GAP))
    block = "█" if can_print(console, "█") else "#"
    lines = []
    for name, amount, own in rows:
        style, colour = ("bold green", "green") if own else ("", "dim")
        bar = block * max(1, round(room * amount / longest))
        lines.append([Text(name, style), Text(bar, colour), Text(f"{amount:.3f}", style)])
    title = "Bits per byte of held-out text (lower is better)"
    return Grid(title, ("", "", ""), lines, frozenset({1, 2}), left=frozenset({1}))


def _list_before_after(metrics: Mapping[str, Any]) -> RenderableType | None:
    rows = []
    for row in list_changes(metrics):
        change = Text(f"{row.percent:+.1f}%", style="green" if row.better else "red")
        rows.append([Text(row.label), Text(number(row.before)), Text(number(row.after)), change])
    columns = ("", "before", "after", "change")
    return Grid("Before and after", columns, rows, frozenset({1, 2, 3})) if rows else None


def _list_scores(metrics: Mapping[str, Any]) -> RenderableType | None:
    """List what a classifier, or a regression, reached: each measure with its interval, then what
    guessing reaches."""
    headlines: tuple[str, ...] = _HEADLINES
    names: tuple[str, ...] = _CLASSIFIER
    if "rmse" in metrics:
        headlines = _REGRESSION[:1]
        names = _REGRESSION
    if "held_out_examples" not in metrics or not metrics.keys() & set(headlines):
        return None
    rows = []
    for name in names:
        if not is_number(metrics.get(name)):
            continue
        words = label(name)
        if name.startswith("baseline_"):
            words = name_guess(name.removeprefix("baseline_"))
        interval = interval_95(name, metrics)
        style = "bold green" if name in headlines else ""
        amount = Text(value(name, metrics[name]), style)
        rows.append([Text(words, style), amount, Text(f"95%: {interval}" if interval else "")])
    title = f"On {number(metrics['held_out_examples'])} held-out examples"
    return Grid(title, ("", "", ""), rows, frozenset({1}))


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
    rows = [(label(name), value(name, amount)) for name, amount in left.items()]
    return Grid.of("Measures", ("", ""), rows, numbers=1)


def _paired_names(metrics: Mapping[str, Any]) -> Iterator[str]:
    for name in metrics:
        if f"base_{name}" in metrics or f"{name}_other_question" in metrics:
            yield name


def _lay_out(found: Mapping[str, Any]) -> RenderableType:
    """Return at most ten rows; columns without any text are of numbers."""
    columns = _column_names(found)
    rows = list(found.get("rows") or [])
    # rows may be shorter than the heading: the file may be a user's own
    texts = {n for row in rows for n, cell in enumerate(row) if isinstance(cell, str)}
    cells = [[Text(_one_line(cell)) for cell in row] for row in rows[:ROWS]]
    numbers = frozenset(range(len(columns))) - texts
    return Grid(str(found.get("title", "")), tuple(columns), cells, numbers, _count_the_rest(rows))


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
    cells: list[list[Text]] = []
    for row in rows[:ROWS]:
        for index, (column, cell) in enumerate(zip(columns, row, strict=False)):
            text = shorten(_one_line(cell), PROSE, placeholder=" …")
            cells.append([Text(column, "dim"), Text(text, style="" if index else "bold")])
        cells.append([Text(""), Text("")])
    title = str(found.get("title", ""))
    return Grid(title, ("", ""), cells, caption=_count_the_rest(rows))


def _column_names(found: Mapping[str, Any]) -> list[str]:
    return [str(column) for column in found.get("columns") or []]


def _count_the_rest(rows: list[Any]) -> str:
    return f"{len(rows) - ROWS} more in the report" if len(rows) > ROWS else ""


def _one_line(cell: Any) -> str:
    return " ".join(value("", cell)[:CELL].split())
