"""Self-contained pages about a search for settings, and about a learning-rate range test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from groundup.metrics.directions import lower_is_better
from groundup.reports.formatting import is_number, label, number
from groundup.reports.line_charts import Series, draw_line_chart
from groundup.reports.page import highlight_yaml, render_page

__all__ = ["Trial", "write_page", "write_tuning_report"]

# as many as there are colours of lines
DRAWN_TRIALS = 6


@dataclass(frozen=True)
class Trial:
    """One trial: its number from 0, how it ended, its best value, its settings and its validations
    by step."""

    number: int
    state: str
    value: float | None
    settings: dict[str, Any]
    validations: dict[int, float]


def write_page(
    output: Path,
    title: str,
    cards: Sequence[tuple[str, str, str]],
    tables: Sequence[dict[str, Any]],
    charts: Sequence[Markup],
    recipe: str,
) -> Path:
    """Write a page of cards, tables and charts over a recipe, in the style of run reports, and
    return its path."""
    # The page's template insists on every name, so that a misspelled one is an error.
    empty: dict[str, Any] = dict.fromkeys(
        ("baselines", "changes", "samples", "metrics", "answers", "events", "figures", "parts"), ()
    )
    empty |= dict.fromkeys(("samples_total", "events_total", "unreadable_lines"), 0)
    empty |= {"diagnosis": None, "about": "", "data_card": {}, "environment": {}}
    section = {
        **empty,
        "id": "run-1",
        "name": title,
        "folder": str(output.parent),
        "cards": cards,
        "tables": tables,
        "charts": [chart for chart in charts if chart],
        "recipe": highlight_yaml(recipe),
    }
    output.write_text(render_page(title, [section]), encoding="utf-8")
    return output


def write_tuning_report(
    folder: Path,
    name: str,
    metric: str,
    trials: Sequence[Trial],
    importance: dict[str, float],
    recipe: str,
) -> Path:
    """Write ``report.html``: the history of trials, how much each setting matters, every trial, the
    best recipe.

    Args:
        folder: Where to write it.
        name: What was tuned.
        metric: What trials were compared by.
        trials: All of them, in order.
        importance: Share of the variation that each setting explains; empty where unknown.
        recipe: The best trial's, as YAML.
    """
    lower = lower_is_better(metric)
    sign = 1.0 if lower else -1.0
    done = [(t, t.value) for t in trials if t.value is not None and t.state == "complete"]
    best, value = min(done, key=lambda pair: sign * pair[1])
    history = [
        Series("trial", [(float(trial.number), found) for trial, found in done], "faint", dots=True)
    ]
    records: list[tuple[float, float]] = []
    for trial, found in done:
        earlier = [record for _, record in records[-1:]]
        records.append((trial.number, sign * min(sign * each for each in (*earlier, found))))
    history.append(Series("best so far", records, "line-0"))
    curves = [
        Series(f"trial {t.number}", points, f"line-{index % DRAWN_TRIALS}")
        for index, t in enumerate(trials[-30:])
        if (points := _finite_points(t))
    ]
    charts = [
        draw_line_chart("History", history, unit=label(metric), x_label="trial"),
        draw_line_chart(
            "Validations of each trial",
            curves[-DRAWN_TRIALS:],
            unit=label(metric),
            clip_spikes=True,
        ),
    ]
    keys = list(best.settings)
    # the best first; trials without a value, which failed or were ended early, last
    order = sorted(trials, key=lambda t: (t.value is None, sign * (t.value or 0.0)))
    rows = [
        [t.number, t.state, t.value, *(_in_words(t.settings.get(key)) for key in keys)]
        for t in order
    ]
    tables = [
        {
            "title": "Trials",
            "columns": ["trial", "state", label(metric), *keys],
            "rows": rows,
            "note": "",
        }
    ]
    if importance:
        note = (
            "Share of the variation between trials that a setting explains, alone and with others"
            " (fANOVA)."
        )
        shares = [[key, f"{100 * share:.0f}%"] for key, share in importance.items()]
        tables.insert(
            0,
            {"title": "Importance", "columns": ["setting", "share"], "rows": shares, "note": note},
        )
    # who does not know the metric would read the curve the wrong way round
    better = "less is better" if lower else "more is better"
    cards = [(f"best {label(metric)}", number(value), f"trial {best.number}; {better}")]
    cards += [(key, _in_words(chosen), "") for key, chosen in best.settings.items()]
    cards.append(
        ("trials", str(len(trials)), f"{sum(t.state == 'pruned' for t in trials)} ended early")
    )
    return write_page(folder / "report.html", f"{name}: tuning", cards, tables, charts, recipe)


def _finite_points(trial: Trial) -> list[tuple[float, float]]:
    return [
        (float(step), found)
        for step, found in sorted(trial.validations.items())
        if math.isfinite(found)
    ]


def _in_words(value: Any) -> str:
    return number(value) if is_number(value) else str(value)
