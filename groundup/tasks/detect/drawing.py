"""What was found, drawn into the picture it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.media.images import read_picture
from groundup.media.picture_drawing import draw_boxes

__all__ = ["draw_found"]

# Told apart on light and dark grounds, and by people who see no red or green.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9a6700", "#6639ba", "#cf222e", "#57606a")
# Pixels of the shorter side from which on names are legible.
_LEGIBLE = 320


def draw_found(source: Any, found: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """Return a stored picture (H, W, 3) with what was found in it, each class in a colour.

    Args:
        source: The picture, as a path, the bytes of a file or a Pillow image.
        found: As ``predict`` gives it.

    Raises:
        DataError: If the picture cannot be read.
    """
    whole = read_picture(source, str(source)[:200], 3)
    classes = sorted({str(thing["label"]) for thing in found})
    # The surest last: it lies on top of the others.
    shown = list(reversed(found))
    colours = [_COLOURS[classes.index(str(each["label"])) % len(_COLOURS)] for each in shown]
    texts = [f"{each['label']} {100 * each['score']:.0f}%" for each in shown]
    factor = float(max(1, round(_LEGIBLE / min(whole.shape[:2]))))
    return draw_boxes(whole, [each["box"] for each in shown], texts, colours, factor)
