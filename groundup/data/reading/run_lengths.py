"""Outlines of COCO as run lengths: how long stretches of pixels are in turn outside and inside,
down the columns from the left.

Source: the format of the annotations of Lin et al., 2014 (arXiv:1405.0312): plain numbers, or a
text in which each is written in groups of 5 bits, from the third on as the difference to the
number before the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from groundup.data.reading.marked_pictures import Corners

__all__ = ["Region", "read_region"]

# Characters begin at this one, each with 5 bits and one that says whether the number goes on.
_FIRST = 48
_BITS = 5
_MORE = 1 << _BITS
_NEGATIVE = 1 << (_BITS - 1)


class Region(NamedTuple):
    """What pixels are inside.

    Attributes:
        corners: The box around them, in pixels.
        area: How many they are.
        size: Height and width of the picture that they are of.
    """

    corners: Corners
    area: int
    size: tuple[int, int]


def read_region(segmentation: Mapping[str, Any]) -> Region:
    """Return the pixels of an outline with ``counts`` and ``size``.

    Raises:
        ValueError: If it is no such outline, or an empty one, in words.
    """
    size = segmentation.get("size")
    plain = isinstance(size, list) and len(size) == 2 and all(_is_count(each) for each in size)
    if not plain:
        raise ValueError(f"size is {str(size)[:40]}; allowed: height and width")
    height, width = segmentation["size"]
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _decode(counts)
    if not isinstance(counts, list) or not all(_is_count(each) for each in counts):
        raise ValueError("counts are no numbers of pixels")
    if sum(counts) != height * width:
        raise ValueError(f"counts are {sum(counts)} pixels, but size is {height} x {width}")
    rows: list[int] = []
    columns: list[int] = []
    begin = 0
    for number, count in enumerate(counts):
        end = begin + count
        # Outside and inside in turn, outside first.
        if number % 2 and count:
            columns += [begin // height, (end - 1) // height]
            # What goes on in the next column touches the lower edge, and the upper.
            several = columns[-2] != columns[-1]
            rows += [0, height - 1] if several else [begin % height, (end - 1) % height]
        begin = end
    if not rows:
        raise ValueError("no pixel is inside")
    left, top, right, bottom = min(columns), min(rows), max(columns) + 1, max(rows) + 1
    corners = (float(left), float(top), float(right), float(bottom))
    return Region(corners, sum(counts[1::2]), (height, width))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _decode(text: str) -> list[int]:
    """Return the numbers of a text."""
    counts: list[int] = []
    value = place = 0
    for character in text:
        bits = ord(character) - _FIRST
        if not 0 <= bits < 2 * _MORE:
            raise ValueError(f"counts hold {character!r}")
        value |= (bits & (_MORE - 1)) << (_BITS * place)
        place += 1
        if bits & _MORE:
            continue
        # The last group of a number says its sign.
        if bits & _NEGATIVE:
            value -= 1 << (_BITS * place)
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
        value = place = 0
    if place:
        raise ValueError("counts end within a number")
    return counts
