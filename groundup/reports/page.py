"""``report.html``: one self-contained page about one or several runs. No script, no network; prints
well."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from groundup.core.errors import RunError
from groundup.reports import formatting
from groundup.reports.figures import draw
from groundup.reports.line_charts import Series, line_chart, smoothed, thinned
from groundup.reports.overfitting import diagnose
from groundup.reports.run_reader import RunRecord, read_run

__all__ = ["answer_cards", "highlighted_yaml", "render_page", "write_report"]

SAMPLES_SHOWN = 8
EVENTS_SHOWN = 60
_TESTED = 4  # metrics of the test split that are cards
Row = dict[str, Any]


def write_report(run_folders: list[Path], output: Path) -> Path:
    """Write one page about these runs, in this order (pretraining before fine-tuning).

    Args:
        run_folders: Folders made by training; parts that are missing are left out of the page.
        output: The file to write, such as ``runs/x/report.html``.

    Returns:
        ``output``.

    Raises:
        RunError: If there is no run, or a folder is not one.
    """
    if not run_folders:
        raise RunError(
            "report", "got no run folder", "Name at least one folder made by groundup train"
        )
    records = [read_run(Path(folder)) for folder in run_folders]
    sections = [_section(record, index) for index, record in enumerate(records)]
    title = " → ".join(record.name for record in records)
    page = render_page(title=title, sections=sections, comparison=None)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    return output


def render_page(title: str, sections: Sequence[Row], comparison: Row | None) -> str:
    """Fill the packaged template. Everything that is not ``Markup`` is escaped."""
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return _template().render(
        title=title, sections=sections, comparison=comparison, written=written
    )


@cache
def _template() -> Template:
    """Return the packaged template, compiled once."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(label=formatting.label, value=_cell)
    return environment.get_template("page.html.jinja")


def _section(record: RunRecord, index: int) -> Row:
    tables = [(table, answer_cards(table)) for table in record.tables]
    return {
        "id": f"run-{index + 1}",
        "name": record.name,
        "about": str(record.recipe.get("about") or ""),
        "folder": str(record.folder),
        "parts": _parts(record),
        "cards": _cards(record),
        "baselines": _bars(record.metrics),
        "changes": formatting.changes(record.metrics),
        "charts": _charts(record),
        "figures": [drawn for figure in record.figures if (drawn := draw(figure))],
        "diagnosis": diagnose(record),
        "samples": _samples(record),
        "samples_total": len(record.sample),
        "metrics": [(name, _cell(amount, name)) for name, amount in record.metrics.items()],
        "answers": [(table, cards) for table, cards in tables if cards],
        "tables": [table for table, cards in tables if not cards],
        "data_card": record.data_card,
        "recipe": highlighted_yaml(record.recipe_text),
        "environment": record.environment,
        "events": record.event[-EVENTS_SHOWN:],
        "events_total": len(record.event),
        "unreadable_lines": record.unreadable_lines,
    }


def _parts(record: RunRecord) -> list[str]:
    """The recipe in a few words: which model, task, data and processor."""
    names = [record.recipe.get(kind) for kind in ("model", "task", "data", "processor")]
    return [str(part["name"]) for part in names if isinstance(part, dict) and part.get("name")]


# -------------------------------------------------------------------------------------------- cards
def _cards(record: RunRecord) -> list[tuple[str, str, str]]:
    """(label, value, remark) of the headline numbers that this run has."""
    metrics, cards = record.metrics, []
    if formatting.is_number(metrics.get("bits_per_byte")):
        cards.append(
            (
                "bits per byte, held out",
                formatting.number(metrics["bits_per_byte"]),
                _beside_xz(metrics),
            )
        )
    for name in (
        "answer_bits_per_byte",
        "rouge_l",
        "accuracy",
        "mean_absolute_error",
        "quadratic_weighted_kappa",
    ):
        if formatting.is_number(metrics.get(name)):
            remark = _beside_base(name, metrics) or formatting.beside_guessing(name, metrics)
            cards.append((formatting.label(name), formatting.number(metrics[name]), remark))
    validation = record.points("evaluate", "loss")
    if validation:
        step, best = min(validation, key=lambda point: point[1])
        cards.append(
            ("best validation loss", formatting.number(best), f"at step {formatting.number(step)}")
        )
    return cards + _test_cards(record) + _speed_cards(record)


def _test_cards(record: RunRecord) -> list[tuple[str, str, str]]:
    """What the last step's weights reached on the test split, where ``evaluation.test`` asks."""
    found = record.test_metrics
    remark = (
        f"on the test split, at step {formatting.number(record.test[-1]['step'])}" if found else ""
    )
    return [
        (f"test {formatting.label(name)}", formatting.value(name, found[name]), remark)
        for name in list(found)[:_TESTED]
    ]


def _speed_cards(record: RunRecord) -> list[tuple[str, str, str]]:
    cards = []
    loss, steps = record.last("train", "loss"), record.points("train", "loss")
    if loss is not None:
        cards.append(("last training loss", formatting.number(loss), f"{len(steps)} logged steps"))
    unit = record.unit
    count = record.last("train", unit)
    if count:
        cards.append(
            (
                f"{unit} trained on",
                formatting.compact(count),
                f"in {formatting.number(steps[-1][0])} steps",
            )
        )
    rates, shares = record.points("train", f"{unit}_per_s"), record.points("train", "matmul_share")
    if rates:
        remark = f"{100 * _median(shares):.0f}% of the measured matmul rate" if shares else "median"
        cards.append((f"{unit} a second", formatting.compact(_median(rates)), remark))
    peak = max((amount for _, amount in record.points("train", "memory_bytes")), default=0)
    elapsed = record.last("train", "elapsed_s")
    if elapsed:
        cards.append(
            (
                "time",
                formatting.duration(elapsed),
                f"peak memory {formatting.memory(peak)}" if peak else "",
            )
        )
    return cards


def _median(points: Sequence[tuple[float, float]]) -> float:
    return sorted(amount for _, amount in points)[len(points) // 2]


def _beside_xz(metrics: Row) -> str:
    xz = metrics.get("baseline_xz_bits_per_byte")
    if not formatting.is_number(xz) or not xz:
        return ""
    return f"{metrics['bits_per_byte'] / xz:.2f} × xz -9 ({formatting.number(xz)})"


def _beside_base(name: str, metrics: Row) -> str:
    before = metrics.get(f"base_{name}")
    if not formatting.is_number(before) or not before:
        return ""
    return (
        f"was {formatting.number(before)} before ({100 * (metrics[name] - before) / before:+.0f}%)"
    )


def _bars(metrics: Row) -> list[Row]:
    rows = formatting.baselines(metrics)
    longest = max((amount for _, amount, _ in rows), default=1.0)
    return [
        {
            "label": name,
            "words": f"{amount:.3f}",
            "percent": round(100 * amount / longest, 1),
            "own": own,
        }
        for name, amount, own in rows
    ]


# ------------------------------------------------------------------------------------------- charts
def _charts(record: RunRecord) -> list[Markup]:
    marks = [(float(row["step"]), str(row.get("message", ""))) for row in record.event]
    loss = record.points("train", "loss")
    validation = record.points("evaluate", "loss")
    unit = "nats per token" if record.points("evaluate", "perplexity") else "loss"
    lines = [
        Series("each step", loss, "faint"),
        Series("training", smoothed(loss), "line-0"),
        Series("validation", validation, "line-1", dots=True),
    ]
    noisy: Row = {"from_zero": True, "noisy": True}
    charts = [
        line_chart(
            "Loss",
            lines if len(loss) >= 50 else lines[1:],
            unit=unit,
            marks=marks,
            clip_spikes=True,
        ),
        _plain_chart(record, "Held-out text", "evaluate", "bits_per_byte", "bits per byte"),
        _plain_chart(record, "Held-out accuracy", "evaluate", "accuracy", "share that is right"),
        _plain_chart(
            record, "Learning rate", "train", "learning_rate", "learning rate", from_zero=True
        ),
        _plain_chart(
            record,
            "Gradient norm",
            "train",
            "gradient_norm",
            "before clipping",
            from_zero=True,
            clip_spikes=True,
        ),
        _plain_chart(
            *(record, "Throughput", "train", f"{record.unit}_per_s", f"{record.unit} per second"),
            words=formatting.compact,
            **noisy,
        ),
        _plain_chart(
            record,
            "Share of the machine",
            "train",
            "matmul_share",
            "% of measured matmul rate",
            words=_percent,
            **noisy,
        ),
        _plain_chart(
            record, "Memory", "train", "memory_bytes", "GiB", from_zero=True, scale=2.0**-30
        ),
    ]
    return [chart for chart in charts if chart]


def _plain_chart(
    record: RunRecord,
    title: str,
    kind: str,
    name: str,
    unit: str,
    scale: float = 1,
    noisy: bool = False,
    **options: Any,
) -> Markup:
    judged = kind == "evaluate"
    points = [(step, amount * scale) for step, amount in record.points(kind, name)]
    lines = [Series(unit, points, "line-1" if judged else "line-0", dots=judged)]
    if noisy and len(points) >= 50:
        lines = [
            Series("each step", points, "faint"),
            Series("running mean", smoothed(points), "line-0"),
        ]
    return line_chart(title, lines, unit=unit, **options)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


# ------------------------------------------------------------------------------------------ samples
def _samples(record: RunRecord) -> list[tuple[float, list[Row]]]:
    """A few moments of training with the texts written then, grouped by step."""
    by_step: dict[float, list[Row]] = {}
    for row in record.sample:
        by_step.setdefault(row["step"], []).append(row)
    return thinned(list(by_step.items()), SAMPLES_SHOWN)


def answer_cards(table: Row) -> list[Row]:
    """Return a table of questions and answers as cards, or nothing when the table is not one.

    A table is one when a column holds the question and at least one other holds an answer (its
    title has "answer", "before", "after", "reference" or "expected").

    Returns:
        Each card: ``question``, ``answers`` as (title, text, role: before, after or reference),
            ``rest`` as
        (title, cell).
    """
    columns = [str(column) for column in table["columns"]]
    question = next(
        (i for i, name in enumerate(columns) if re.search(r"question|prompt", name, re.I)), None
    )
    roles = {
        i: role for i, name in enumerate(columns) if i != question and (role := _answer_role(name))
    }
    texts = {
        i for i in roles if any(len(row) > i and isinstance(row[i], str) for row in table["rows"])
    }
    if question is None or not texts:
        return []
    cards = []
    for row in table["rows"]:
        cells = [*row, *[None] * (len(columns) - len(row))]
        rest = [
            (columns[i], cells[i]) for i in range(len(columns)) if i != question and i not in texts
        ]
        answers = [(columns[i], cells[i], roles[i]) for i in sorted(texts)]
        cards.append({"question": cells[question], "answers": answers, "rest": rest})
    return cards


def _answer_role(name: str) -> str:
    for pattern, role in (
        (
            r"^answer$|reference|expected|truth|documentation|docstring|\bright\b|correct|target",
            "reference",
        ),
        (r"before|base|pretrained", "before"),
        (r"after|answer|fine-?tuned|model", "after"),
    ):
        if re.search(pattern, name, re.IGNORECASE):
            return role
    return ""


def _cell(cell: Any, name: str = "") -> str:
    return formatting.value(name, cell)


# ------------------------------------------------------------------------------------------- recipe
def highlighted_yaml(text: str) -> Markup:
    """Return YAML with its keys and comments in spans, everything escaped."""
    return Markup("\n").join(_yaml_line(line) for line in text.rstrip().split("\n"))


def _yaml_line(line: str) -> Markup:
    if line.lstrip().startswith("#"):
        return Markup('<span class="c">{}</span>').format(line)
    found = re.match(r"^(\s*(?:- )?)([\w.\-\"']+)(:)(\s.*|)$", line)
    if not found:
        return Markup("{}").format(line)
    content, hash_sign, comment = found[4].partition(" #")
    tail = (
        Markup('<span class="c">{}</span>').format(hash_sign + comment) if hash_sign else Markup("")
    )
    return Markup('{}<span class="k">{}</span>:<span class="v">{}</span>{}').format(
        found[1], found[2], content, tail
    )
