"""Curves of shares in a report, such as precision over recall."""

from __future__ import annotations

from typing import Any

from groundup.reports.figures import draw_figure


def figure(series: list[dict[str, Any]]) -> str:
    content = {"x": "recall", "y": "precision", "series": series}
    return str(draw_figure({"kind": "lines", "title": "Curves", "content": content, "note": ""}))


def test_each_line_has_its_name() -> None:
    series = [{"name": f"<b>{n}", "points": [[0, 1], [0.5, 0.5], [1, 0]]} for n in range(8)]
    drawn = figure(series)
    # A line in the plot and a short one next to its name.
    assert drawn.count("<polyline") == 16
    assert "&lt;b&gt;7" in drawn
    assert "<b>7" not in drawn
    assert "precision" in drawn
    assert 'stroke-dasharray="6 4"' in drawn


def test_what_is_not_known_is_left_out() -> None:
    drawn = figure([{"name": "a", "points": [[0, float("nan")], [1, 2.0]]}])
    assert "nan" not in drawn
    assert figure([]) == ""
