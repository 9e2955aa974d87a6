"""Sheets of pictures, and boxes on pictures, drawn for people to look at.

Shape legend: H rows, W columns, K boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.media.images import pillow

__all__ = ["draw_boxes", "draw_sheet"]

_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSerifCJK-Bold.ttc",
    "msyh.ttc",
    "PingFang.ttc",
    "DejaVuSans.ttf",
)
# In pixels.
_MARGIN = 6
_LINE = 16


def draw_sheet(
    rows: Sequence[Sequence[tuple[NDArray[np.float32], str]]],
    columns: Sequence[str],
    path: Path,
    side: int = 96,
) -> None:
    """Write a PNG of pictures in rows, each with a line of text below it.

    Args:
        rows: Pictures (H, W, 1 or 3), 0 to 1, and what to write below each.
        columns: A title for each column.
        path: The PNG.
        side: Pixels that the longer side of a picture is shown with, at least its own.
    """
    library = pillow().Image
    side = max([side, *(max(picture.shape[:2]) for row in rows for picture, _ in row)])
    wide = side + 2 * _MARGIN
    high = side + _LINE + 2 * _MARGIN
    head = _LINE + 2 * _MARGIN
    sheet = library.new("RGB", (wide * len(columns), head + high * len(rows)), "white")
    pen = pillow().ImageDraw.Draw(sheet)
    font = _find_font()
    for number, title in enumerate(columns):
        pen.text((number * wide + _MARGIN, _MARGIN), title, fill="black", font=font)
    for down, row in enumerate(rows):
        top = head + down * high
        for across, (picture, text) in enumerate(row):
            values = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
            # A single channel is grey to Pillow only without the axis of channels.
            image = library.fromarray(values.squeeze(2) if values.shape[2] == 1 else values)
            factor = side / max(image.size)
            shown = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
            left = across * wide + _MARGIN
            sheet.paste(image.resize(shown, library.Resampling.NEAREST), (left, top))
            line = _shorten(text, font, side + _MARGIN)
            pen.text((left, top + side + 1), line, fill="black", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def draw_boxes(
    picture: NDArray[np.uint8],
    boxes: Sequence[Sequence[float]],
    texts: Sequence[str],
    colours: Sequence[str],
    factor: float = 1.0,
) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) with boxes around parts of it, each with a text at its corner.

    Args:
        picture: (H, W) or (H, W, 3); it is left as it is.
        boxes: Left, top, right and bottom in pixels of it.
        texts: What to write at each; an empty one is left out.
        colours: Of each, by a name or as #rrggbb.
        factor: How much larger the picture is returned: small ones have no room for letters.
    """
    library = pillow()
    image = library.Image.fromarray(picture).convert("RGB")
    shown = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    image = image.resize(shown, library.Image.Resampling.NEAREST)
    pen = library.ImageDraw.Draw(image)
    font = _find_font()
    line = max(1, round(min(shown) / 200))
    for box, text, colour in zip(boxes, texts, colours, strict=True):
        left, top, right, bottom = (round(edge * factor) for edge in box)
        # The last pixel of a box is inside it.
        right = max(left, right - 1)
        bottom = max(top, bottom - 1)
        pen.rectangle((left, top, right, bottom), outline=colour, width=line)
        if text:
            wide = font.getlength(text) + 4
            x = max(0, min(left, shown[0] - wide))
            # Above the box, or inside it where there is no room.
            y = top - _LINE if top >= _LINE else top
            pen.rectangle((x, y, x + wide, y + _LINE), fill=colour)
            pen.text((x + 2, y), text, fill="white", font=font)
    return np.asarray(image, np.uint8)


def _find_font() -> Any:
    """Return a font that knows Chinese if the system has one, else Pillow's own."""
    fonts = pillow().ImageFont
    for name in _FONTS:
        try:
            return fonts.truetype(name, 11)
        except OSError:
            continue
    return fonts.load_default(11)


def _shorten(text: str, font: Any, width: int) -> str:
    """Return a text cut to ``width`` pixels, with an ellipsis where it is longer."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
