"""What part of each training picture is read, drawn for its sample.

Shape legend: B samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.data import Views
from groundup.core.values import Example
from groundup.media.augmentation.draws import Draws
from groundup.media.augmentation.settings import Augment
from groundup.media.picture_fit import CroppedPicture

__all__ = ["views_of"]

_DRAWS = 40  # four for each of ten tries


def views_of(settings: Augment, seed: int) -> Views | None:
    """Return what draws a part of each picture by ``random_resized_crop``; None where it is not
    set."""
    scale = settings.random_resized_crop
    if scale is None:
        return None

    def crop(
        examples: Sequence[Any], samples: NDArray[np.int64], role: str
    ) -> Sequence[Example]:  # (B,)
        drawn = Draws(seed, samples, role)("random resized crop", _DRAWS)
        ratio = settings.random_resized_crop_ratio
        return [
            replace(example, inputs=CroppedPicture(example.inputs, drawn[:, row], scale, ratio))
            for row, example in enumerate(examples)
        ]

    return crop
