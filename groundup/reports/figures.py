"""The figures of an evaluation as inline SVG and pictures: confusion matrix, reliability diagram,
mistakes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from groundup.reports.boards import show_boards
from groundup.reports.formatting import number
from groundup.reports.line_charts import nice_ticks

__all__ = ["draw_figure", "show_picture"]

_SIDE = 520.0
_LEFT = 58.0
_TOP = 30.0
# classes that a matrix shows legibly in half the page
_NARROW = 12
# What a browser would load from elsewhere, or run, never gets into a page.
_PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")


def draw_figure(figure: Mapping[str, Any]) -> Markup:
    """Return a ``<figure>``, or the empty string for a figure of an unknown kind or without its
    values.

    Args:
        figure: ``kind``, ``title``, ``content`` and ``note`` as in ``records.Figure``, from a file
            that anybody may have written: everything is escaped, and only PNG pictures are shown.
    """
    kinds = {
        "matrix": _draw_matrix,
        "reliability": _draw_reliability,
        "pictures": _show_pictures,
        "scatter": _draw_scatter,
        "sheet": _show_sheet,
        "pairs": _show_pairs,
        "lines": _draw_lines,
        "boards": show_boards,
    }
    draw = kinds.get(str(figure.get("kind")))
    if draw is None:
        return Markup("")
    try:
        inside = draw(figure["content"], str(figure["title"]))
    # a damaged file costs its figure, not the report
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return Markup("")
    if not inside:
        return Markup("")
    note = Markup("")
    if figure.get("note"):
        note = Markup('<p class="quiet">{}</p>').format(figure["note"])
    wide = ""
    if (
        figure["kind"] in ("pictures", "sheet", "pairs", "boards")
        or len(figure["content"].get("labels", ())) > _NARROW
    ):
        wide = " wide"
    return Markup('<figure class="chart{}"><figcaption><b>{}</b></figcaption>{}{}</figure>').format(
        wide, figure["title"], inside, note
    )


def _svg(title: str, height: float, parts: list[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        _SIDE, height, title, Markup("").join(parts)
    )


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "middle",
    size: float = 13.5,
    style: str = "tick",
) -> Markup:
    return Markup(
        '<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}"'
        ' style="font-size:{:.1f}px">{}</text>'
    ).format(style, x, y, anchor, size, words)


# --------------------------------------------------------------------------------- confusion matrix
def _draw_matrix(content: Mapping[str, Any], title: str) -> Markup:
    """Draw counts in cells, shaded by their share of the row: right ones in one colour, mistakes in
    the other."""
    labels = [str(label) for label in content["labels"]]
    counts = content["counts"]
    if not labels:
        return Markup("")
    # a letter of the page's font is about 0.62 times as wide as it is high
    longest = min(14, max(map(len, labels)))
    size = max(7.0, min(13.5, 300.0 / len(labels)))
    left = max(40.0, 22.0 + 0.62 * size * longest)
    cell = (_SIDE - left - 4) / len(labels)
    tilted = 0.62 * size * max(map(len, labels)) > cell
    top = 24.0 + (0.62 * size * longest if tilted else size)
    parts = [_text(left + cell * len(labels) / 2, 13, "predicted", style="axis")]
    for column, label in enumerate(labels):
        middle = left + (column + 0.5) * cell
        parts.append(_draw_column_label(label, middle, top - 5, size, tilted))
    for row, label in enumerate(labels):
        middle = top + (row + 0.5) * cell
        parts.append(_text(left - 6, middle + size / 3, _cut(label), anchor="end", size=size))
        total = sum(counts[row]) or 1
        for column, name in enumerate(labels):
            words = f"{label} as {name}: {number(counts[row][column])} of {number(total)}"
            corner = (left + column * cell, top + row * cell)
            count = counts[row][column]
            parts.append(_draw_cell(corner, cell, count, total, words, right=row == column))
    parts.append(Markup('<text class="axis" x="2" y="{:.1f}">true</text>').format(top - 5))
    return _svg(title, top + cell * len(labels) + 6, parts)


def _cut(label: str) -> str:
    return label if len(label) <= 14 else label[:13] + "…"


def _draw_column_label(label: str, x: float, y: float, size: float, tilted: bool) -> Markup:
    if not tilted:
        return _text(x, y, _cut(label), size=size)
    return Markup(
        '<text class="tick" transform="translate({:.1f} {:.1f}) rotate(-90)"'
        ' style="font-size:{:.1f}px">{}</text>'
    ).format(x + size / 3, y, size, _cut(label))


def _draw_cell(
    corner: tuple[float, float], cell: float, count: int, total: int, words: str, *, right: bool
) -> Markup:
    colour = "line-0"
    strength = count / total
    if not right:
        # a quarter of a class mistaken for one other is as bad as it gets, and is to be seen
        colour = "line-1"
        strength = min(1.0, 4 * strength)
    # even a single example has a shade, so that only an empty cell looks empty
    shade = (0.12 + 0.78 * strength) * bool(count)
    square = Markup(
        '<rect class="cell {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"'
        ' fill-opacity="{:.2f}"/>'
    ).format(colour, *corner, cell - 1, cell - 1, shade)
    figure = Markup("")
    if count and cell > 12:
        size = min(14.0, cell / max(1.6, 0.62 * len(str(count)) + 0.5))
        left, top = corner
        # light letters on dark cells
        style = "over" if shade > 0.5 else "on"
        figure = _text(
            left + cell / 2, top + cell / 2 + size / 3, str(count), size=size, style=style
        )
    return Markup("<g>{}{}<title>{}</title></g>").format(square, figure, words)


# -------------------------------------------------------------------------------------- reliability
def _draw_reliability(content: Mapping[str, Any], title: str) -> Markup:
    """Draw how often it was right over how sure it was, the diagonal of an honest one, and the
    examples of each bin."""
    bins = content["bins"]
    width = _SIDE - _LEFT - 14
    plot = 260.0
    # for the bars of how many examples each bin has
    below = 46.0
    most = max(each["count"] for each in bins) or 1

    def x(share: float) -> float:
        return _LEFT + share * width

    def y(share: float) -> float:
        return _TOP + (1 - min(max(share, 0.0), 1.0)) * plot

    parts = [_text(4, 14, "share that is right", anchor="start", style="axis")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            Markup(
                '<line class="grid" x1="{0:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{2:.1f}"/>'
            ).format(x(0), x(1), y(tick))
        )
        parts.append(_text(_LEFT - 7, y(tick) + 4, f"{100 * tick:.0f}%", anchor="end"))
        # the last one would run out of the picture
        anchor = "end" if tick == 1 else "middle"
        parts.append(_text(x(tick), y(0) + below + 18, f"{100 * tick:.0f}%", anchor=anchor))
    for place, each in enumerate(bins):
        if not each["count"]:
            continue
        start = x(place / len(bins)) + 1
        step = width / len(bins) - 2
        high = below * 0.8 * each["count"] / most
        words = (
            f"{number(each['count'])} examples, on average {100 * each['confidence']:.1f}% sure, "
            f"{100 * each['right']:.1f}% right"
        )
        parts.append(
            Markup(
                '<g><rect class="bar line-0" x="{0:.1f}" width="{1:.1f}" y="{2:.1f}"'
                ' height="{3:.1f}" fill-opacity="0.75"/><rect class="bar line-1" x="{0:.1f}"'
                ' width="{1:.1f}" y="{4:.1f}" height="{5:.1f}" fill-opacity="0.55"/><circle'
                ' class="dot line-1" cx="{6:.1f}" cy="{7:.1f}" r="3.4"/><title>{8}</title></g>'
            ).format(
                start,
                step,
                y(each["right"]),
                y(0) - y(each["right"]),
                y(0) + below - high,
                high,
                x(each["confidence"]),
                y(each["right"]),
                words,
            )
        )
    parts.append(
        Markup('<line class="honest" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
            x(0), x(1), y(0), y(1)
        )
    )
    words = "confidence, with the examples of each bin"
    parts.append(_text(x(1), y(0) + below + 36, words, anchor="end", style="axis"))
    return _svg(title, y(0) + below + 42, parts)


# ------------------------------------------------------------------------------------------ scatter
def _draw_scatter(content: Mapping[str, Any], title: str) -> Markup:
    """Draw true values over predicted ones, on axes of the same range, and the diagonal on which
    predictions are right."""
    points = [(float(predicted), float(true)) for predicted, true in content["points"]]
    if not points or not all(math.isfinite(each) for point in points for each in point):
        return Markup("")
    values = [each for point in points for each in point]
    ticks = nice_ticks(min(values), max(values))
    low = min(ticks[0], *values)
    high = max(ticks[-1], *values)
    side = _SIDE - _LEFT - 14

    def place(value: float) -> float:
        return (value - low) / (high - low) * side

    parts = [_text(4, 14, "true", anchor="start", style="axis")]
    bottom = _TOP + side
    for tick in ticks:
        at = bottom - place(tick)
        parts.append(
            Markup(
                '<line class="grid" x1="{0:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{2:.1f}"/>'
            ).format(_LEFT, _LEFT + side, at)
        )
        parts.append(_text(_LEFT - 7, at + 4, number(tick), anchor="end"))
        parts.append(_text(_LEFT + place(tick), bottom + 18, number(tick)))
    parts.append(
        Markup('<line class="honest" x1="{0:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{3:.1f}"/>').format(
            _LEFT, _LEFT + side, bottom, _TOP
        )
    )
    for predicted, true in points:
        words = f"predicted {number(predicted)}, is {number(true)}"
        parts.append(
            Markup(
                '<circle class="dot line-0" cx="{:.1f}" cy="{:.1f}" r="3" fill-opacity="0.6">'
                "<title>{}</title></circle>"
            ).format(_LEFT + place(predicted), bottom - place(true), words)
        )
    parts.append(_text(_LEFT + side, bottom + 36, "predicted", anchor="end", style="axis"))
    return _svg(title, bottom + 42, parts)


# -------------------------------------------------------------------------------------------- lines
def _draw_lines(content: Mapping[str, Any], title: str) -> Markup:
    """Draw lines of shares over shares, 0 to 1 both, with their names below."""
    series = content["series"]
    if not series:
        return Markup("")
    width = _SIDE - _LEFT - 14
    plot = 300.0
    bottom = _TOP + plot
    parts = [_text(4, 14, str(content["y"]), anchor="start", style="axis")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = bottom - tick * plot
        parts.append(
            Markup(
                '<line class="grid" x1="{0:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{2:.1f}"/>'
            ).format(_LEFT, _LEFT + width, at)
        )
        parts.append(_text(_LEFT - 7, at + 4, f"{tick:g}", anchor="end"))
        # the last one would run out of the picture
        anchor = "end" if tick == 1 else "middle"
        parts.append(_text(_LEFT + tick * width, bottom + 18, f"{tick:g}", anchor=anchor))
    parts.append(_text(_LEFT + width, bottom + 36, str(content["x"]), anchor="end", style="axis"))
    # Names below, not beside their lines: curves of classes lie on each other.
    names = []
    for place, each in enumerate(series):
        # there are six colours; further lines differ by their dashes
        dashes = ("", "6 4", "2 3")[place // 6 % 3]
        points = [(float(x), float(y)) for x, y in each["points"]]
        drawn = " ".join(
            f"{_LEFT + x * width:.1f},{bottom - min(max(y, 0.0), 1.0) * plot:.1f}"
            for x, y in points
            if math.isfinite(x) and math.isfinite(y)
        )
        style = f"line-{place % 6}"
        parts.append(
            Markup(
                '<polyline class="line {}" points="{}" stroke-dasharray="{}"><title>{}</title>'
                "</polyline>"
            ).format(style, drawn, dashes, each["name"])
        )
        names.append(_draw_name(str(each["name"]), place, style, dashes, bottom + 58))
    rows = (len(series) + 2) // 3
    return _svg(title, bottom + 58 + 18 * rows, parts + names)


def _draw_name(name: str, place: int, style: str, dashes: str, top: float) -> Markup:
    """Draw a short piece of a line with its name, three in a row."""
    row, column = divmod(place, 3)
    left = _LEFT + column * (_SIDE - _LEFT) / 3
    y = top + 18 * row
    line = Markup(
        '<polyline class="line {0}" points="{1:.1f},{2:.1f} {3:.1f},{2:.1f}"'
        ' stroke-dasharray="{4}"/>'
    ).format(style, left, y, left + 22, dashes)
    return line + _text(left + 28, y + 4, _cut(name), anchor="start")


# ----------------------------------------------------------------------------------------- pictures
def _show_pictures(content: Mapping[str, Any], title: str) -> Markup:
    items = content["items"]
    if not items:
        return Markup('<p class="quiet">No mistakes.</p>')
    # pictures are tiles, texts are lines
    style = "mistakes" if any(item.get("picture") for item in items) else "mistaken"
    cells = [_show_mistake(item) for item in items]
    return Markup('<div class="{}">{}</div>').format(style, Markup("").join(cells))


def _show_sheet(content: Mapping[str, Any], title: str) -> Markup:
    """Show a grid of small pictures, each of its pixels three wide."""
    return show_picture(str(content["picture"]), title)


def show_picture(address: str, words: str) -> Markup:
    """Return an image of a PNG as a data address, enlarged without smoothing; nothing, where it is
    none."""
    if not _PICTURE.fullmatch(address):
        return Markup("")
    return Markup('<img class="sheet" src="{}" alt="{}"/>').format(address, words)


def _show_pairs(content: Mapping[str, Any], title: str) -> Markup:
    cells = []
    for item in content["items"]:
        label = str(item["label"])
        style = "bad" if item.get("marked") else "quiet"
        picture = show_picture(str(item["picture"]), f"{item['name']}: {label}")
        cells.append(
            Markup('<div title="{}">{}<span class="{}">{}</span></div>').format(
                str(item["name"]), picture, style, label
            )
        )
    return Markup('<div class="mistakes">{}</div>').format(Markup("").join(cells))


def _show_mistake(item: Mapping[str, Any]) -> Markup:
    true = str(item["true"])
    predicted = str(item["predicted"])
    name = str(item["name"])
    verdict = Markup(
        '<span><b class="bad">{}</b> {:.0f}%</span><span class="quiet">is {}</span>'
    ).format(predicted, 100 * float(item["probability"]), true)
    address = str(item.get("picture") or "")
    if _PICTURE.fullmatch(address):
        words = f"{name}: {true} taken for {predicted}"
        return Markup('<div title="{0}"><img src="{1}" alt="{0}"/>{2}</div>').format(
            words, address, verdict
        )
    text = str(item.get("text") or name)
    return Markup('<div title="{}"><div class="text">{}</div>{}</div>').format(name, text, verdict)
