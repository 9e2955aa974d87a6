"""Pictures of one size as tensors, scaled by what the training split shows.

Shape legend: N pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from groundup.core.errors import DataError
from groundup.core.interfaces import Batch, ProcessorConfig
from groundup.core.records import Example
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.processors.files import read_json, write_json

__all__ = ["ImageConfig", "ImageProcessor"]


class ImageProcessor:
    """Scales pixels and pads.

    Args:
        shape: (C, H, W) of the pictures that come in.
        pad_to: (H, W) to pad to with zeros on all sides, or None.
        mean: What is taken off each channel.
        scale: What each channel is then divided by.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        pad_to: tuple[int, int] | None,
        mean: Sequence[float],
        scale: Sequence[float],
    ) -> None:
        self.shape, self.pad_to, self.mean, self.scale = shape, pad_to, tuple(mean), tuple(scale)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.shape[0], *(self.pad_to or self.shape[1:]))

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``inputs`` (N, C, H, W) float32.

        Raises:
            DataError: If a picture has another shape than those the processor was fitted to.
        """
        pictures = np.stack([_channels_first(np.asarray(each), self.shape, n) for n, each in enumerate(inputs)])
        values = torch.from_numpy(pictures.astype(np.float32, copy=False))
        mean, scale = (torch.tensor(each, dtype=torch.float32)[:, None, None] for each in (self.mean, self.scale))
        values = (values - mean) / scale
        if self.pad_to is None:
            return {"inputs": values}
        (top, left), (height, width) = self._margins(), self.shape[1:]
        return {"inputs": F.pad(values, (left, self.pad_to[1] - width - left, top, self.pad_to[0] - height - top))}

    def _margins(self) -> tuple[int, int]:
        assert self.pad_to is not None
        return (self.pad_to[0] - self.shape[1]) // 2, (self.pad_to[1] - self.shape[2]) // 2

    def save(self, folder: Path) -> None:
        """Write processor.json."""
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {"shape": self.shape, "pad_to": self.pad_to, "mean": self.mean, "scale": self.scale}
        write_json(folder / "processor.json", {"name": "image", **numbers})

    @classmethod
    def load(cls, folder: Path) -> ImageProcessor:
        """Return the processor that ``save`` wrote to ``folder``.

        Raises:
            DataError: If processor.json is missing or is not what ``save`` writes.
        """
        saved = read_json(folder / "processor.json")
        try:
            channels, height, width = saved["shape"]
            pad_to = (int(saved["pad_to"][0]), int(saved["pad_to"][1])) if saved["pad_to"] else None
            return cls((channels, height, width), pad_to, saved["mean"], saved["scale"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            where = str(folder / "processor.json")
            raise DataError(where, f"is damaged: {type(error).__name__} {error}", "Train the run again") from None


@processor("image")
class ImageConfig(ProcessorConfig):
    """Pictures that all have one size. What scales them is learned from the training split and saved with the run."""

    reads: ClassVar[Literal["texts", "examples"]] = "examples"
    normalise: Literal["unit", "standard", "none"] = setting(
        "unit", "unit: divided by the largest value; standard: mean 0 and variance 1 of each channel"
    )
    pad_to: tuple[int, int] | None = setting(None, "Height and width to pad to with background on all sides")

    def fit(self, texts: Callable[[], Iterator[Example]]) -> ImageProcessor:
        """Return the processor with the shape and the scale of the training examples.

        Raises:
            DataError: If there are no pictures, or they cannot be padded to a smaller size.
        """
        examples = list(texts())
        if not examples:
            raise DataError("recipe.processor", "there are no training examples", "Check the data section")
        first = np.asarray(examples[0].inputs)
        shape = _shape_of(first, examples[0].origin)
        if self.pad_to is not None and (self.pad_to[0] < shape[1] or self.pad_to[1] < shape[2]):
            problem = f"the pictures have {shape[1]} x {shape[2]} pixels, more than {self.pad_to[0]} x {self.pad_to[1]}"
            raise DataError("recipe.processor.pad_to", problem, "Choose a larger size")
        pictures = np.stack([_channels_first(np.asarray(e.inputs), shape, n) for n, e in enumerate(examples)])
        mean, scale = self._scaling(pictures)
        return ImageProcessor(shape, self.pad_to, mean, scale)

    def _scaling(self, pictures: NDArray[Any]) -> tuple[list[float], list[float]]:
        channels = pictures.shape[1]
        if self.normalise == "standard":
            spread = pictures.std((0, 2, 3), dtype=np.float64)
            mean = pictures.mean((0, 2, 3), dtype=np.float64)
            return mean.tolist(), np.where(spread > 0, spread, 1.0).tolist()
        largest = float(pictures.max()) or 1.0
        return [0.0] * channels, [largest if self.normalise == "unit" else 1.0] * channels

    @classmethod
    def load(cls, folder: Path) -> ImageProcessor:
        """Return the processor that was saved to ``folder``."""
        return ImageProcessor.load(folder)


def _shape_of(picture: NDArray[Any], origin: str) -> tuple[int, int, int]:
    if picture.ndim == 2:
        return (1, *picture.shape)
    if picture.ndim == 3 and picture.shape[2] in (1, 3, 4):
        return (picture.shape[2], *picture.shape[:2])
    problem = f"has shape {picture.shape}; allowed: (height, width) or (height, width, 1, 3 or 4 channels)"
    raise DataError(origin or "a picture", problem, "Reshape the inputs")


def _channels_first(picture: NDArray[Any], shape: tuple[int, int, int], number: int) -> NDArray[Any]:
    found = _shape_of(picture, f"picture {number}")
    if found != shape:
        own = f"{found[1]} x {found[2]} pixels and {found[0]} channels"
        problem = f"has {own}; the others {shape[1]} x {shape[2]} and {shape[0]}"
        raise DataError(f"picture {number}", problem, "Give pictures of one size")
    return picture[None] if picture.ndim == 2 else np.moveaxis(picture, 2, 0)
