"""Line charts: round ticks, readable ranges, nothing of the data as markup."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from html_pages import HOSTILE

from groundup.reports.line_charts import Series, draw_line_chart, nice_ticks, smooth, thin


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (3.2, 7.9), (-4, 4), (1e-5, 3e-4), (5, 5), (0, 0), (0, 1e12)]
)
def test_ticks_are_round_and_span_the_values(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 9


def test_charts_mind_their_edges() -> None:
    assert draw_line_chart("empty", [Series("x", [])], unit="u") == ""
    chart = str(
        draw_line_chart(HOSTILE, [Series("one", [(1, 2.0)])], unit=HOSTILE, marks=[(1, "m")])
    )
    ElementTree.fromstring(chart)
    assert "<title>step 1" in chart
    assert "&lt;script" in chart
    spiky = [(float(i), 1.0 + i % 3) for i in range(100)] + [(100.0, 1e6)]
    assert "1 beyond the top" in draw_line_chart(
        "spikes", [Series("x", spiky)], unit="u", clip_spikes=True
    )


def test_smoothing_and_thinning() -> None:
    assert smooth([(0, 1.0), (1, 4.0), (2, 7.0)], window=3) == [(0, 2.5), (1, 4.0), (2, 5.5)]
    assert thin(list(range(100)), 3) == [0, 50, 99]
    assert thin([1, 2], 3) == [1, 2]
