"""How texts that were written are reported next to those of other ways to write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from groundup.core.values import Table
from groundup.metrics.generated_text import TextScore

__all__ = ["BASE", "MODEL", "compare_ways", "name_scores", "shorten"]

MODEL = "this model"
BASE = "before fine-tuning"
_SHOWN = 400  # characters of a text that a table shows


def name_scores(way: str, scores: Mapping[str, TextScore]) -> dict[str, float]:
    """Return the scores of one way to write under the names of metrics: of the model as they are
    called, with the ends of their intervals; else ``base_NAME`` or ``baseline_WAY_NAME``."""
    prefix = {MODEL: "", BASE: "base_"}.get(way, f"baseline_{way}_")
    found: dict[str, float] = {}
    for name, score in scores.items():
        found[f"{prefix}{name}"] = score.value
        if way == MODEL:
            found[f"{name}_low_95"] = score.low
            found[f"{name}_high_95"] = score.high
    return found


def compare_ways(
    title: str,
    who: str,
    metrics: Sequence[str],
    scores: Mapping[str, Mapping[str, TextScore]],
    note: str,
) -> Table:
    """Return a table with a row for each way to write, and its scores with their intervals."""
    columns = [who]
    for name in metrics:
        columns += [name, "95% interval"]
    rows: list[tuple[str | float | int | None, ...]] = []
    for way, own in scores.items():
        cells: list[str | float | int | None] = [way]
        for name in metrics:
            score = own[name]
            cells += [float(f"{score.value:.4g}"), f"{score.low:.4g} to {score.high:.4g}"]
        rows.append(tuple(cells))
    return Table(title, tuple(columns), rows, note)


def shorten(text: str) -> str:
    """Return a text as a cell of a table."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
