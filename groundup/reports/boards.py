"""Positions of a game, and what a search thought of the moves, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

__all__ = ["show_boards"]

_CELL = 22.0
_WIDTH = 300.0
_LINE = 17.0
_MOST_MOVES = 8  # of a position, the likeliest


def show_boards(content: Mapping[str, Any], title: str) -> Markup:
    """Return positions next to each other: the board, and a bar for each move."""
    items = [_show(item, number) for number, item in enumerate(content["items"], 1)]
    if not items:
        return Markup("")
    return Markup('<div class="pictures boards" aria-label="{}">{}</div>').format(
        title, Markup("").join(items)
    )


def _show(item: Mapping[str, Any], number: int) -> Markup:
    rows = [str(row) for row in item["rows"]]
    # Go has hundreds of moves, of which a reader looks at the first few.
    moves = list(item["moves"])[:_MOST_MOVES]
    board, top = _board(rows)
    bars = [_bar(move, top + 14 + _LINE * place) for place, move in enumerate(moves)]
    height = top + _LINE * len(moves) + 10
    words = f"{number}. plays {item['played']}, expects {float(item['value']):+.2f}"
    drawn = Markup(
        '<svg viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}" role="img" aria-label="{}">{}{}</svg>'
    ).format(_WIDTH, height, _WIDTH, words, board, Markup("").join(bars))
    return Markup("<div><p>{}</p>{}</div>").format(words, drawn)


def _board(rows: Sequence[str]) -> tuple[Markup, float]:
    """Return a board, and its height."""
    # Boards of stones are drawn; others are shown as they print themselves.
    stones = set("".join(rows)) <= set(".xo") and len({len(row) for row in rows}) == 1
    if not stones:
        # Games of other libraries draw themselves, in letters of one width.
        lines = [
            Markup(
                '<text class="tick" x="0" y="{:.0f}" xml:space="preserve"'
                ' style="font-family:monospace;font-size:11px">{}</text>'
            ).format(12 + 13 * place, row)
            for place, row in enumerate(rows)
        ]
        return Markup("").join(lines), 13.0 * len(rows) + 6
    parts = []
    for high, row in enumerate(rows):
        for wide, place in enumerate(row):
            middle = (_CELL * (wide + 0.5), _CELL * (high + 0.5))
            shape = Markup(
                '<circle cx="{:.0f}" cy="{:.0f}" r="{:.0f}" class="{}" fill-opacity="{}"/>'
            )
            if place == ".":
                parts.append(shape.format(*middle, 3, "line-0", 0.25))
            else:
                name = {"x": "line-0", "o": "line-1"}[place]
                parts.append(shape.format(*middle, _CELL * 0.42, "cell " + name, 0.9))
    return Markup("").join(parts), _CELL * len(rows) + 6


def _bar(move: Mapping[str, Any], y: float) -> Markup:
    """Return a line of a move: its share after the search over that before it."""
    # Two bars: what the search has changed is what it found out.
    share = float(move["share"])
    prior = float(move["prior"])
    words = f"{prior:.0%} to {share:.0%}, {float(move['visits']):.0f} tries"
    if float(move["visits"]):
        words += f", {float(move['gain']):+.2f}"
    return Markup(
        '<text class="tick" x="0" y="{:.1f}" style="font-size:12px">{}</text>'
        '<rect class="cell line-0" x="40" y="{:.1f}" width="{:.1f}" height="5"'
        ' fill-opacity="0.8"/>'
        '<rect class="cell line-1" x="40" y="{:.1f}" width="{:.1f}" height="4"'
        ' fill-opacity="0.5"/>'
        '<text class="tick" x="122" y="{:.1f}" style="font-size:11px">{}</text>'
    ).format(y, str(move["name"])[:7], y - 9, 1 + 76 * share, y - 3, 1 + 76 * prior, y, words)
