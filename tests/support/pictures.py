"""Folders of real pictures for tests: scikit-learn's digits as PNG, and its two photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tiny_runs import SKLEARN_DATA

from groundup.data.sources.arrays import Arrays

PHOTOGRAPHS = SKLEARN_DATA.parent / "images"


def digit_folders(root: Path, count: int = 60, classes: str = "0123456789", first: int = 0) -> Path:
    """Write ``count`` digits as ``root/<digit>/<number>.png``, 8 x 8 pixels of grey, from the
    ``first`` on."""
    written = 0
    for example in Arrays().examples("train", root)[first:]:
        if str(example.target) in classes and written < count:
            save(
                root / str(example.target) / f"{int(example.name):04}.png",
                example.inputs / 16 * 255,
            )
            written += 1
    return root


def save(path: Path, values: Any, **options: Any) -> Path:
    """Write an array of 0 to 255 as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values).round().astype(np.uint8)).save(path, **options)
    return path
