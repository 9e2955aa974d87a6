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
from groundup.reports.diagnose import diagnose
from groundup.reports.figures import draw_figure
from groundup.reports.line_charts import Series, draw_line_chart, smooth
from groundup.reports.reward_curves import draw_reward_charts
from groundup.reports.run_reader import RunRecord, read_run
from groundup.reports.samples import choose_samples

__all__ = ["find_answer_cards", "highlight_yaml", "render_page", "write_report"]

EVENTS_SHOWN = 60
# metrics of the test split that are cards
_TESTED = 4
# points from which a running mean says more than the points
_NOISY = 50
# of texts that a model writes
_WRITTEN = ("bleu", "chrf", "rouge_l", "exact_match", "f1", "wer", "cer")
_HEADLINES = (
    "answer_bits_per_byte",
    *_WRITTEN,
    "accuracy",
    "rmse",
    "mae",
    "r2",
    "mean_absolute_error",
    "quadratic_weighted_kappa",
)
# By what columns of answers are called; the first that fits counts: "model answer" is no reference.
_ROLES = {
    "reference": (
        r"^answer$|reference|expected|truth|documentation|docstring|\bright\b|correct|target"
    ),
    "before": r"before|base|pretrained",
    "after": r"after|answer|fine-?tuned|model",
}
Row = dict[str, Any]
# label, value, remark
Card = tuple[str, str, str]


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
    sections = [_make_section(record, index) for index, record in enumerate(records)]
    page = render_page(" → ".join(record.name for record in records), sections)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    return output


def render_page(title: str, sections: Sequence[Row]) -> str:
    """Fill the packaged template. Everything that is not ``Markup`` is escaped."""
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return _load_template().render(title=title, sections=sections, written=now)


@cache
def _load_template() -> Template:
    """Return the packaged template, compiled once."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelled name is an error, not an empty place
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        label=formatting.label, value=lambda cell, name="": formatting.value(name, cell)
    )
    return environment.get_template("page.html.jinja")


def _make_section(record: RunRecord, index: int) -> Row:
    tables = [(table, find_answer_cards(table)) for table in record.tables]
    figures = [draw_figure(figure) for figure in record.figures]
    return {
        "id": f"run-{index + 1}",
        "name": record.name,
        "about": str(record.recipe.get("about") or ""),
        "folder": str(record.folder),
        "parts": _name_parts(record),
        "cards": _make_cards(record),
        "baselines": _make_bars(record.metrics),
        "changes": formatting.list_changes(record.metrics),
        "charts": _draw_charts(record),
        "figures": [figure for figure in figures if figure],
        "diagnosis": diagnose(record),
        "samples": choose_samples(record),
        "samples_total": len(record.sample),
        "metrics": [
            (name, formatting.value(name, amount)) for name, amount in record.metrics.items()
        ],
        "answers": [(table, cards) for table, cards in tables if cards],
        "tables": [table for table, cards in tables if not cards],
        "data_card": record.data_card,
        "recipe": highlight_yaml(record.recipe_text),
        "environment": record.environment,
        "events": record.event[-EVENTS_SHOWN:],
        "events_total": len(record.event),
        "unreadable_lines": record.unreadable_lines,
    }


def _name_parts(record: RunRecord) -> list[str]:
    """Return the recipe in a few words: which model, task, data and processor."""
    names = [record.section(kind).get("name") for kind in ("model", "task", "data", "processor")]
    return [str(name) for name in names if name]


# -------------------------------------------------------------------------------------------- cards
def _make_cards(record: RunRecord) -> list[Card]:
    """Return the headline numbers that this run has."""
    metrics = record.metrics
    cards: list[Card] = []
    if formatting.is_number(metrics.get("bits_per_byte")):
        amount = formatting.number(metrics["bits_per_byte"])
        cards.append(("bits per byte, held out", amount, _compare_with_xz(metrics)))
    for name in _HEADLINES:
        if formatting.is_number(metrics.get(name)):
            remark = _compare_with_base(name, metrics)
            remark = remark or formatting.compare_with_guessing(name, metrics)
            cards.append((formatting.label(name), formatting.number(metrics[name]), remark))
    validation = record.points("evaluate", "loss")
    if validation:
        step, best = min(validation, key=lambda point: point[1])
        where = f"at step {formatting.number(step)}"
        cards.append(("best validation loss", formatting.number(best), where))
    return cards + _make_test_cards(record) + _make_speed_cards(record)


def _make_test_cards(record: RunRecord) -> list[Card]:
    """Return what the last step's weights reached on the test split, where ``evaluation.test``
    asks."""
    return [
        (
            f"test {formatting.label(name)}",
            formatting.value(name, amount),
            f"on the test split, at step {formatting.number(record.test[-1]['step'])}",
        )
        for name, amount in list(record.test_metrics.items())[:_TESTED]
    ]


def _make_speed_cards(record: RunRecord) -> list[Card]:
    cards: list[Card] = []
    losses = record.points("train", "loss")
    if losses:
        last = formatting.number(losses[-1][1])
        cards.append(("last training loss", last, f"{len(losses)} logged steps"))
    unit = record.unit
    count = record.last("train", unit)
    if count and losses:
        steps = f"in {formatting.number(losses[-1][0])} steps"
        cards.append((f"{unit} trained on", formatting.compact(count), steps))
    rates = record.points("train", f"{unit}_per_s")
    shares = record.points("train", "matmul_share")
    if rates:
        of = f"{100 * _median(shares):.0f}% of the measured matmul rate" if shares else "median"
        cards.append((f"{unit} a second", formatting.compact(_median(rates)), of))
    elapsed = record.last("train", "elapsed_s")
    if elapsed:
        remark = ""
        if memory := record.points("train", "memory_bytes"):
            peak = max(amount for _, amount in memory)
            remark = f"peak memory {formatting.memory(peak)}"
        cards.append(("time", formatting.duration(elapsed), remark))
    return cards


def _median(points: Sequence[tuple[float, float]]) -> float:
    return sorted(amount for _, amount in points)[len(points) // 2]


def _compare_with_xz(metrics: Row) -> str:
    xz = metrics.get("baseline_xz_bits_per_byte")
    if not formatting.is_number(xz) or not xz:
        return ""
    return f"{metrics['bits_per_byte'] / xz:.2f} × xz -9 ({formatting.number(xz)})"


def _compare_with_base(name: str, metrics: Row) -> str:
    before = metrics.get(f"base_{name}")
    if not formatting.is_number(before) or not before:
        return ""
    return (
        f"was {formatting.number(before)} before ({100 * (metrics[name] - before) / before:+.0f}%)"
    )


def _make_bars(metrics: Row) -> list[Row]:
    rows = formatting.list_baselines(metrics)
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
def _draw_charts(record: RunRecord) -> list[Markup]:
    marks = [(float(row["step"]), str(row.get("message", ""))) for row in record.event]
    loss = record.points("train", "loss")
    validation = record.points("evaluate", "loss")
    # only a model of text has a perplexity; of other losses the unit depends on the task
    unit = "nats per token" if record.points("evaluate", "perplexity") else "loss"
    lines = [
        Series("training", smooth(loss), "line-0"),
        Series("validation", validation, "line-1", dots=True),
    ]
    if plain := record.points("evaluate", "plain_loss"):
        lines.append(Series("validation, plain", plain, "line-2", dots=True))
    if len(loss) >= _NOISY:
        lines.insert(0, Series("each step", loss, "faint"))
    charts = [
        *draw_reward_charts(record),
        draw_line_chart("Loss", lines, unit=unit, marks=marks, clip_spikes=True),
        _draw_column(record, "Held-out text", "evaluate", "bits_per_byte", "bits per byte"),
        _draw_column(record, "Held-out accuracy", "evaluate", "accuracy", "share that is right"),
        *(
            _draw_column(record, f"Held-out {label}", "evaluate", name, label)
            for name, label in ((name, formatting.label(name)) for name in _WRITTEN)
        ),
        _draw_column(
            record, "Learning rate", "train", "learning_rate", "learning rate", from_zero=True
        ),
        _draw_column(
            record,
            "Gradient norm",
            "train",
            "gradient_norm",
            "before clipping",
            from_zero=True,
            clip_spikes=True,
        ),
        _draw_column(
            record,
            "Throughput",
            "train",
            f"{record.unit}_per_s",
            f"{record.unit} per second",
            words=formatting.compact,
            from_zero=True,
            noisy=True,
        ),
        _draw_column(
            record,
            "Share of the machine",
            "train",
            "matmul_share",
            "% of measured matmul rate",
            words=lambda share: f"{100 * share:.0f}%",
            from_zero=True,
            noisy=True,
        ),
        _draw_column(
            record, "Memory", "train", "memory_bytes", "GiB", from_zero=True, scale=2.0**-30
        ),
    ]
    return [chart for chart in charts if chart]


def _draw_column(
    record: RunRecord,
    title: str,
    kind: str,
    name: str,
    unit: str,
    scale: float = 1,
    noisy: bool = False,
    **options: Any,
) -> Markup:
    """Draw one column of ``metrics.jsonl``; of a noisy one the running mean as well."""
    points = [(step, amount * scale) for step, amount in record.points(kind, name)]
    lines = [Series(unit, points, "line-0")]
    if kind == "evaluate":
        # in the colour of the validation loss, and few
        lines = [Series(unit, points, "line-1", dots=True)]
    if noisy and len(points) >= _NOISY:
        lines = [
            Series("each step", points, "faint"),
            Series("running mean", smooth(points), "line-0"),
        ]
    return draw_line_chart(title, lines, unit=unit, **options)


# ------------------------------------------------------------------------------------------ answers
def find_answer_cards(table: Row) -> list[Row]:
    """Return a table of questions and answers as cards, or nothing when the table is not one.

    A table is one when a column holds the question and at least one other holds an answer (its
    title has "answer", "before", "after", "reference" or "expected").

    Returns:
        Each card: ``question``, ``answers`` as (title, text, role: before, after or reference),
            ``rest`` as (title, cell).
    """
    columns = [str(column) for column in table["columns"]]
    question = next(
        (i for i, name in enumerate(columns) if re.search(r"question|prompt", name, re.I)), None
    )
    roles = {
        i: role for i, name in enumerate(columns) if i != question and (role := _role_of(name))
    }
    texts = {
        i for i in roles if any(len(row) > i and isinstance(row[i], str) for row in table["rows"])
    }
    if question is None or not texts:
        return []
    cards = []
    for row in table["rows"]:
        # a row may be cut short
        cells = [*row, *[None] * (len(columns) - len(row))]
        rest = [
            (columns[i], cells[i]) for i in range(len(columns)) if i != question and i not in texts
        ]
        answers = [(columns[i], cells[i], roles[i]) for i in sorted(texts)]
        cards.append({"question": cells[question], "answers": answers, "rest": rest})
    return cards


def _role_of(name: str) -> str:
    for role, pattern in _ROLES.items():
        if re.search(pattern, name, re.IGNORECASE):
            return role
    return ""


# ------------------------------------------------------------------------------------------- recipe
def highlight_yaml(text: str) -> Markup:
    """Return YAML with its keys and comments in spans, everything escaped."""
    return Markup("\n").join(_highlight_line(line) for line in text.rstrip().split("\n"))


def _highlight_line(line: str) -> Markup:
    if line.lstrip().startswith("#"):
        return Markup('<span class="c">{}</span>').format(line)
    found = re.match(r"^(\s*(?:- )?)([\w.\-\"']+)(:)(\s.*|)$", line)
    if not found:
        return Markup("{}").format(line)
    content, hash_sign, comment = found[4].partition(" #")
    tail = Markup("")
    if hash_sign:
        tail = Markup('<span class="c">{}</span>').format(hash_sign + comment)
    return Markup('{}<span class="k">{}</span>:<span class="v">{}</span>{}').format(
        found[1], found[2], content, tail
    )
