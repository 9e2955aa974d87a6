"""Small line charts as inline SVG: no script, no dependency, readable in light, dark and print.

The page's style sheet gives the classes their colours; hovering or tapping a chart shows the values
at a step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from markupsafe import Markup, escape

from groundup.reports.formatting import number

__all__ = ["Series", "draw_line_chart", "nice_ticks", "smooth", "thin"]

WIDTH = 520.0
HEIGHT = 270.0
# The margins hold the numbers and names of the axes.
LEFT = 58.0
RIGHT = 14.0
TOP = 30.0
BOTTOM = 42.0
# more, and a page of many charts takes megabytes
HOVER_BANDS = 60
# of a line 450 units wide
DRAWN_POINTS = 600
DOTS = 40
Point = tuple[float, float]
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Series:
    """A named line over steps. ``style`` is a class of the style sheet: line-0 .. line-5, or
    faint."""

    label: str
    points: Sequence[Point]
    style: str = "line-0"
    dots: bool = False


@dataclass(frozen=True)
class _Frame:
    """The visible ranges, and the way from values to positions in the drawing."""

    x_ticks: list[float]
    y_ticks: list[float]
    x_range: Point
    y_range: Point

    def x(self, step: float) -> float:
        low, high = self.x_range
        return LEFT + (step - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, amount: float) -> float:
        low, high = self.y_range
        inside = min(max(amount, low), high)
        return HEIGHT - BOTTOM - (inside - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers (1, 2, 2.5 or 5 times a power of ten) that span ``low``
    to ``high``."""
    if not low < high:
        # one value: it is drawn in the middle
        low -= (abs(low) or 1) / 2
        high += (abs(high) or 1) / 2
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    # a quotient may miss a whole number by its rounding
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def thin(items: Sequence[Kept], limit: int) -> list[Kept]:
    """Return at most ``limit`` items, evenly spread, always with the first and the last."""
    if len(items) <= limit:
        return list(items)
    return [items[round(index * (len(items) - 1) / (limit - 1))] for index in range(limit)]


def smooth(points: Sequence[Point], window: int = 0) -> list[Point]:
    """Return the running mean over ``window`` points (a twenty-fifth of them by default), centred,
    ends included."""
    half = (window or max(1, len(points) // 25)) // 2
    totals = [0.0]
    for _, amount in points:
        totals.append(totals[-1] + amount)
    spans = [(max(0, i - half), min(len(points), i + half + 1)) for i in range(len(points))]
    return [
        (points[i][0], (totals[end] - totals[start]) / (end - start))
        for i, (start, end) in enumerate(spans)
    ]


def draw_line_chart(
    title: str,
    series: Sequence[Series],
    *,
    unit: str,
    words: Callable[[float], str] = number,
    marks: Sequence[tuple[float, str]] = (),
    from_zero: bool = False,
    clip_spikes: bool = False,
    x_label: str = "step",
) -> Markup:
    """Draw lines over steps.

    Args:
        title: The heading, also the drawing's name for screen readers.
        series: The lines; those without points are left out.
        unit: What the vertical axis counts.
        words: How a value is written on the axis and in tooltips.
        marks: (step, message) of events, drawn as vertical lines.
        from_zero: Begin the vertical axis at zero.
        clip_spikes: Let a few outliers run out of the picture, so that the rest can be read.
        x_label: What the horizontal axis counts.

    Returns:
        A ``<figure>``, or the empty string when there is nothing to draw.
    """
    shown = [line for line in series if line.points]
    if not shown:
        return Markup("")
    frame, outside = _choose_frame(shown, from_zero, clip_spikes)
    parts = [_draw_axes(frame, unit, words, x_label), _draw_marks(frame, marks)]
    parts += [_draw_line(frame, line) for line in shown]
    # a line of one point would be invisible
    parts += [_draw_dots(frame, line) for line in shown if line.dots or len(line.points) == 1]
    parts.append(_draw_hover_bands(frame, shown, words, x_label))
    legend = _draw_legend(shown)
    note = Markup("")
    if outside:
        note = Markup('<span class="chart-note">{} beyond the top</span>').format(outside)
    return Markup(
        '<figure class="chart"><figcaption><b>{}</b>{}{}</figcaption>'
        '<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg></figure>'
    ).format(title, legend, note, WIDTH, HEIGHT, f"{title}, {unit}", Markup("").join(parts))


def _choose_frame(
    series: Sequence[Series], from_zero: bool, clip_spikes: bool
) -> tuple[_Frame, int]:
    """Return the visible ranges, and how many points are above them."""
    steps = [step for line in series for step, _ in line.points]
    amounts = sorted(amount for line in series for _, amount in line.points)
    low = amounts[0]
    high = amounts[-1]
    if clip_spikes and len(amounts) > 20:
        usual = amounts[int(0.97 * (len(amounts) - 1))]
        high = min(high, usual + 0.5 * (usual - low))
    if from_zero:
        low = min(low, 0.0)
    ticks = nice_ticks(low, high)
    outside = sum(amount > ticks[-1] for amount in amounts)
    x_low = min(steps)
    x_high = max(steps)
    if x_low == x_high:
        x_low -= 1
        x_high += 1
    # curves that begin near the start begin at it; those of a late part of a run do not
    if 0 < x_low < 0.4 * x_high:
        x_low = 0.0
    x_ticks = [
        tick
        for tick in nice_ticks(x_low, x_high)
        if x_low <= tick <= x_high and float(tick).is_integer()
    ]
    return _Frame(x_ticks, ticks, (x_low, x_high), (ticks[0], ticks[-1])), outside


def _draw_axes(frame: _Frame, unit: str, words: Callable[[float], str], x_label: str) -> Markup:
    parts = []
    for tick in frame.y_ticks:
        parts.append(
            Markup('<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
                LEFT, WIDTH - RIGHT, frame.y(tick), frame.y(tick)
            )
        )
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>').format(
                LEFT - 7, frame.y(tick) + 4, _axis_words(tick, words)
            )
        )
    for tick in frame.x_ticks:
        # the last number would run out of the picture
        anchor = "end" if frame.x(tick) > WIDTH - RIGHT - 12 else "middle"
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                frame.x(tick), HEIGHT - BOTTOM + 18, anchor, number(tick)
            )
        )
    parts.append(Markup('<text class="axis" x="4" y="14">{}</text>').format(unit))
    parts.append(
        Markup('<text class="axis" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>').format(
            WIDTH - RIGHT, HEIGHT - 5, x_label
        )
    )
    return Markup("").join(parts)


def _axis_words(tick: float, words: Callable[[float], str]) -> str:
    if abs(tick) < 1e-12:
        # what is left of 0.3 - 3 * 0.1
        tick = 0.0
    text = words(tick)
    if "e" in text:
        return text
    # of 0.500 the zeros go, of 2. GiB the point
    return re.sub(r"(\.\d*?)0+(?=\D|$)", r"\1", text).replace(". ", " ").removesuffix(".")


def _draw_marks(frame: _Frame, marks: Sequence[tuple[float, str]]) -> Markup:
    low, high = frame.x_range
    inside = [(step, message) for step, message in marks if low <= step <= high]
    return Markup("").join(
        Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>').format(
            frame.x(step), TOP, HEIGHT - BOTTOM
        )
        for step, _ in thin(inside, DOTS)
    )


def _draw_line(frame: _Frame, line: Series) -> Markup:
    points = " ".join(
        f"{frame.x(step):.1f},{frame.y(amount):.1f}"
        for step, amount in thin(line.points, DRAWN_POINTS)
    )
    return Markup('<polyline class="line {}" points="{}"/>').format(line.style, points)


def _draw_dots(frame: _Frame, line: Series) -> Markup:
    return Markup("").join(
        Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>').format(
            line.style, frame.x(step), frame.y(amount)
        )
        for step, amount in thin(line.points, DOTS)
    )


def _draw_hover_bands(
    frame: _Frame, series: Sequence[Series], words: Callable[[float], str], x_label: str
) -> Markup:
    """Return invisible bands over the drawing; the one under the pointer shows a cross-hair and the
    values there."""
    anchors = thin(max(series, key=lambda line: len(line.points)).points, HOVER_BANDS)
    centres = [frame.x(step) for step, _ in anchors]
    between = [(one + two) / 2 for one, two in pairwise(centres)]
    edges = [LEFT, *between, WIDTH - RIGHT]
    bands = []
    for (step, _), (start, end) in zip(anchors, pairwise(edges), strict=True):
        near = [(line, min(line.points, key=lambda point: abs(point[0] - step))) for line in series]
        text = f"{x_label} {number(step)}   " + "   ".join(
            f"{line.label} {words(point[1])}" for line, point in near
        )
        dots = Markup("").join(
            Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3.6"/>').format(
                line.style, frame.x(point[0]), frame.y(point[1])
            )
            for line, point in near
        )
        bands.append(
            Markup(
                '<g class="hover"><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/><g'
                ' class="at"><line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>{}<text'
                ' class="readout" x="{:.1f}" y="14"'
                ' text-anchor="end">{}</text></g><title>{}</title></g>'
            ).format(
                start,
                TOP,
                max(end - start, 0.1),
                HEIGHT - TOP - BOTTOM,
                frame.x(step),
                frame.x(step),
                TOP,
                HEIGHT - BOTTOM,
                dots,
                WIDTH - RIGHT,
                text,
                text,
            )
        )
    return Markup("").join(bands)


def _draw_legend(series: Sequence[Series]) -> Markup:
    if len(series) < 2:
        # the title says what it is
        return Markup("")
    keys = (
        Markup('<span class="key {}"><i></i>{}</span>').format(line.style, escape(line.label))
        for line in series
    )
    return Markup('<span class="legend">{}</span>').format(Markup("").join(keys))
