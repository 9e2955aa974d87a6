"""The figures of an evaluation as inline SVG and pictures: confusion matrix, reliability diagram,
mistakes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from groundup.reports.formatting import number

__all__ = ["draw"]

_SIDE = 520.0
_LEFT, _TOP = 58.0, 30.0
_NARROW = 12  # classes that a matrix shows legibly in half the page
_PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")


def draw(figure: Mapping[str, Any]) -> Markup:
    """Return a ``<figure>``, or the empty string for a figure of an unknown kind or without its
    values.

    Args:
        figure: ``kind``, ``title``, ``content`` and ``note`` as in ``records.Figure``, from a file
            that anybody may have written: everything is escaped, and only PNG pictures are shown.
    """
    drawing = {"matrix": _matrix, "reliability": _reliability, "pictures": _pictures}.get(
        str(figure.get("kind"))
    )
    try:
        inside = drawing(figure["content"], str(figure["title"])) if drawing else Markup("")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return Markup("")
    if not inside:
        return Markup("")
    note = (
        Markup('<p class="quiet">{}</p>').format(figure["note"])
        if figure.get("note")
        else Markup("")
    )
    wide = (
        " wide"
        if figure["kind"] == "pictures" or len(figure["content"].get("labels", ())) > _NARROW
        else ""
    )
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
def _matrix(content: Mapping[str, Any], title: str) -> Markup:
    """Draw counts in cells, shaded by their share of the row: right ones in one colour, mistakes in
    the other."""
    labels, counts = [str(label) for label in content["labels"]], content["counts"]
    if not labels:
        return Markup("")
    longest = min(14, max(map(len, labels)))
    size = max(7.0, min(13.5, 300.0 / len(labels)))
    left = max(40.0, 22.0 + 0.62 * size * longest)
    cell = (_SIDE - left - 4) / len(labels)
    top = 24.0 + (0.62 * size * longest if _tilted(labels, cell, size) else size)
    parts = [_text(left + cell * len(labels) / 2, 13, "predicted", style="axis")]
    for column, label in enumerate(labels):
        parts.append(
            _column_label(
                label, left + (column + 0.5) * cell, top - 5, size, _tilted(labels, cell, size)
            )
        )
    for row, label in enumerate(labels):
        middle = top + (row + 0.5) * cell
        parts.append(_text(left - 6, middle + size / 3, _short(label), anchor="end", size=size))
        total = sum(counts[row]) or 1
        for column, name in enumerate(labels):
            words = f"{label} as {name}: {number(counts[row][column])} of {number(total)}"
            corner = (left + column * cell, top + row * cell)
            parts.append(
                _cell(corner, cell, counts[row][column], total, words, right=row == column)
            )
    parts.append(Markup('<text class="axis" x="2" y="{:.1f}">true</text>').format(top - 5))
    return _svg(title, top + cell * len(labels) + 6, parts)


def _tilted(labels: list[str], cell: float, size: float) -> bool:
    return 0.62 * size * max(map(len, labels)) > cell


def _short(label: str) -> str:
    return label if len(label) <= 14 else label[:13] + "…"


def _column_label(label: str, x: float, y: float, size: float, tilted: bool) -> Markup:
    if not tilted:
        return _text(x, y, _short(label), size=size)
    return Markup(
        '<text class="tick" transform="translate({:.1f} {:.1f}) rotate(-90)"'
        ' style="font-size:{:.1f}px">{}</text>'
    ).format(x + size / 3, y, size, _short(label))


def _cell(
    corner: tuple[float, float], cell: float, count: int, total: int, words: str, *, right: bool
) -> Markup:
    share = count / total
    shade = 0.0 if not count else 0.12 + 0.78 * (share if right else min(1.0, 4 * share))
    square = Markup(
        '<rect class="cell {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"'
        ' fill-opacity="{:.2f}"/>'
    ).format("line-0" if right else "line-1", *corner, cell - 1, cell - 1, shade)
    written = Markup("")
    if count and cell > 12:
        size = min(14.0, cell / max(1.6, 0.62 * len(str(count)) + 0.5))
        x, y = corner[0] + cell / 2, corner[1] + cell / 2 + size / 3
        written = _text(x, y, str(count), size=size, style="over" if shade > 0.5 else "on")
    return Markup("<g>{}{}<title>{}</title></g>").format(square, written, words)


# -------------------------------------------------------------------------------------- reliability
def _reliability(content: Mapping[str, Any], title: str) -> Markup:
    """Draw how often it was right over how sure it was, the diagonal of an honest one, and the
    examples of each bin."""
    bins = content["bins"]
    width, plot, below = _SIDE - _LEFT - 14, 260.0, 46.0
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
        parts.append(
            _text(
                x(tick),
                y(0) + below + 18,
                f"{100 * tick:.0f}%",
                anchor="end" if tick == 1 else "middle",
            )
        )
    for place, each in enumerate(bins):
        if not each["count"]:
            continue
        start, step = x(place / len(bins)) + 1, width / len(bins) - 2
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
    parts.append(
        _text(
            x(1),
            y(0) + below + 36,
            "confidence, with the examples of each bin",
            anchor="end",
            style="axis",
        )
    )
    return _svg(title, y(0) + below + 42, parts)


# ----------------------------------------------------------------------------------------- pictures
def _pictures(content: Mapping[str, Any], title: str) -> Markup:
    items = content["items"]
    if not items:
        return Markup('<p class="quiet">No mistakes.</p>')
    drawn = any(item.get("picture") for item in items)
    cells = [_item(item, drawn) for item in items]
    return Markup('<div class="{}">{}</div>').format(
        "mistakes" if drawn else "mistaken", Markup("").join(cells)
    )


def _item(item: Mapping[str, Any], drawn: bool) -> Markup:
    true, predicted, name = (str(item[key]) for key in ("true", "predicted", "name"))
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
