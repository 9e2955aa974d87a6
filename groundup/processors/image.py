"""Pictures of one size as tensors, scaled by what the training split shows.

Shape legend: N pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from groundup.core.contracts.processors import InputProcessor, ProcessorConfig
from groundup.core.errors import DataError
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.core.values import Batch, Example, StoredFile
from groundup.media.images import is_picture, read_picture
from groundup.processors.saved_files import saved_settings, write_json

__all__ = ["ImageConfig", "ImageProcessor"]

Resize = Literal["stretch", "crop", "pad"]
Resample = Literal["linear", "cubic"]
Shape = tuple[int, int, int]
_File = tuple[bytes, int, Example]  # hash of its name, its place in the data
_TOGETHER = 4096  # arrays that are looked at at a time
_SAMPLE = 2000  # picture files that the scale is learned from
_GREY = (0.299, 0.587, 0.114)  # of red, green and blue, as ITU-R BT.601 weighs them


class ImageProcessor(InputProcessor):
    """Decodes, resizes, scales and pads.

    Args:
        shape: (C, H, W) of the pictures before padding.
        pad_to: (H, W) to pad to with zeros on all sides, or None.
        mean: What is taken off each channel.
        scale: What each channel is then divided by.
        largest: The value that is shown as white: 255 for picture files.
        resize: How pictures of other sizes are brought to this one; None: they are an error.
        convert: Whether pictures with other channels are converted; if not, they are an error.
        resample: How pixels between others are found where pictures are resized.
    """

    def __init__(
        self,
        shape: Shape,
        pad_to: tuple[int, int] | None,
        mean: Sequence[float],
        scale: Sequence[float],
        *,
        largest: float = 1.0,
        resize: Resize | None = None,
        convert: bool = False,
        resample: Resample = "linear",
    ) -> None:
        self.shape, self.pad_to, self.mean, self.scale = shape, pad_to, tuple(mean), tuple(scale)
        self.largest, self.resize, self.convert, self.resample = largest, resize, convert, resample

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.shape[0], *(self.pad_to or self.shape[1:]))

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``inputs`` (N, C, H, W) float32 of paths, bytes of files, Pillow images or arrays.

        Raises:
            DataError: If a picture cannot be read, or has another shape than those the processor
                was fitted to.
        """
        values = torch.zeros(len(inputs), *self.input_shape)
        mean, scale = _columns(self.mean, self.scale)
        top, left = self._margins()
        inside = values[:, :, top : top + self.shape[1], left : left + self.shape[2]]
        size = self.shape[1:] if self.resize else None
        plain = None if self.convert or size else _stacked(inputs)
        if plain is not None and (1, *plain.shape[1:]) == self.shape:
            inside[:, 0] = torch.from_numpy(plain)
            inputs = ()
        for number, each in enumerate(inputs):
            where = _where(each, number)
            pixels = _pixels(
                each,
                where,
                self.shape[0] if self.convert else None,
                size,
                self.resize,
                self.resample,
            )
            if pixels.shape != self.shape:
                raise _other_shape(where, pixels.shape, self.shape)
            inside[number] = torch.from_numpy(pixels)
            if self.largest != 255.0 and is_picture(
                each
            ):  # fitted to arrays that say white with another number
                inside[number] *= self.largest / 255.0
        inside.sub_(mean).div_(scale)
        return {"inputs": values}

    def _margins(self) -> tuple[int, int]:
        height, width = self.input_shape[1:]
        return (height - self.shape[1]) // 2, (width - self.shape[2]) // 2

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Return (N, C, H, W) with 0 for black and 1 for white, of what ``encode_inputs`` gave."""
        mean, scale = _columns(self.mean, self.scale, inputs)
        return (inputs * scale + mean) / self.largest

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Return what a model reads, of pixels between 0 and 1: the reverse of ``to_pixels``."""
        mean, scale = _columns(self.mean, self.scale, pixels)
        return (pixels * self.largest - mean) / scale

    def save(self, folder: Path) -> None:
        """Write processor.json."""
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {
            "shape": self.shape,
            "pad_to": self.pad_to,
            "mean": self.mean,
            "scale": self.scale,
        }
        reading = {
            "largest": self.largest,
            "resize": self.resize,
            "convert": self.convert,
            "resample": self.resample,
        }
        write_json(folder / "processor.json", {"name": "image", **numbers, **reading})

    def to_huggingface(self) -> dict[str, Any] | None:
        """Return the contents of preprocessor_config.json; None where pictures are cropped or
        padded."""
        if self.pad_to is not None or self.resize in ("crop", "pad"):
            return None
        size = {"height": self.shape[1], "width": self.shape[2]}
        mean, scale = ([value / self.largest for value in each] for each in (self.mean, self.scale))
        return {
            **{"image_processor_type": "ViTImageProcessor", "do_resize": True, "size": size},
            **{
                "resample": 3 if self.resample == "cubic" else 2,
                "do_rescale": True,
                "rescale_factor": 1 / 255,
            },
            **{"do_normalize": True, "image_mean": mean, "image_std": scale},
        }

    @classmethod
    def load(cls, folder: Path) -> ImageProcessor:
        """Return the processor that ``save`` wrote to ``folder``.

        Raises:
            DataError: If processor.json is missing or is not what ``save`` writes.
        """
        with saved_settings(folder) as saved:
            channels, height, width = saved["shape"]
            pad_to = (int(saved["pad_to"][0]), int(saved["pad_to"][1])) if saved["pad_to"] else None
            reading = {name: saved[name] for name in ("largest", "resize", "convert")}
            reading["resample"] = saved.get("resample", "linear")  # which older runs do not name
            return cls((channels, height, width), pad_to, saved["mean"], saved["scale"], **reading)


@processor("image")
class ImageConfig(ProcessorConfig):
    """Pictures brought to one size. What scales them is learned from the training split and saved
    with the run."""

    reads: ClassVar[Literal["texts", "examples"]] = "examples"
    size: tuple[int, int] | None = setting(
        None, "Height and width to resize to; null: all pictures must have one size"
    )
    resize: Resize = setting(
        "stretch",
        "stretch: whatever the proportions; crop: the middle is kept; pad: black bars are added",
    )
    resample: Resample = setting("linear", "How pixels between others are found when resizing")
    channels: Literal[1, 3] | None = setting(
        None, "1: grey; 3: red, green, blue; null: as the pictures are"
    )
    normalise: Literal["unit", "standard", "given", "none"] = setting(
        "unit",
        "unit: divided by the largest value, 255 of files; standard: mean 0 and variance 1 of each"
        " channel; given: by mean and std",
    )
    mean: tuple[float, ...] | None = setting(
        None,
        "Taken off each channel, as a share of the largest value",
        applies_when={"normalise": ("given",)},
    )
    std: tuple[float, ...] | None = setting(
        None,
        "What each channel is then divided by, likewise",
        applies_when={"normalise": ("given",)},
    )
    pad_to: tuple[int, int] | None = setting(
        None, "Height and width to pad to with background on all sides"
    )

    @model_validator(mode="after")
    def _consistent(self) -> ImageConfig:
        for name in ("resize", "resample") if self.size is None else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect without size. Give size, or remove {name}")
        if self.normalise == "given" and (not self.mean or len(self.mean) != len(self.std or ())):
            raise ValueError(
                "normalise: given needs mean and std, one number each for each channel. Give both"
            )
        if min(self.std or (1.0,)) <= 0:
            raise ValueError(f"std holds {min(self.std or (1.0,))}. Give numbers above 0")
        return self

    def fit(self, texts: Callable[[], Iterator[Example]]) -> ImageProcessor:
        """Return the processor with the shape and the scale of the training examples.

        All arrays are looked at, one at a time; of picture files 2,000, chosen by a hash of their
        names.

        Raises:
            DataError: If there are no pictures, or they cannot be padded to a smaller size.
        """
        sums: _Sums | None = None
        files: list[_File] = []
        arrays: list[tuple[int, Example]] = []
        for number, example in enumerate(texts()):
            if is_picture(example.inputs):
                _keep(files, number, example)
            else:
                arrays.append((number, example))
            if len(arrays) == _TOGETHER:
                sums, arrays = self._all_added(sums, arrays), []
        sums = self._all_added(sums, arrays)
        for _, number, example in sorted(files, key=lambda file: file[1]):
            sums = self._added(sums, number, example)
        if sums is None:
            raise DataError(
                "recipe.processor", "there are no training examples", "Check the data section"
            )
        shape, largest = sums.shape, 255.0 if files else sums.largest or 1.0
        if self.pad_to is not None and (self.pad_to[0] < shape[1] or self.pad_to[1] < shape[2]):
            problem = (
                f"the pictures have {shape[1]} x {shape[2]} pixels, more than {self.pad_to[0]} x"
                f" {self.pad_to[1]}"
            )
            raise DataError("recipe.processor.pad_to", problem, "Choose a larger size")
        mean, scale = [0.0] * shape[0], [largest if self.normalise == "unit" else 1.0] * shape[0]
        if self.normalise == "standard":
            mean, scale = sums.scaling()
        if self.mean is not None and self.std is not None:
            if len(self.mean) != shape[0]:
                problem = f"has {len(self.mean)} numbers, and the pictures {shape[0]} channels"
                raise DataError(
                    "recipe.processor.mean", problem, "Give one for each channel, or set channels"
                )
            mean, scale = ([value * largest for value in each] for each in (self.mean, self.std))
        reading: dict[str, Any] = {
            "resize": self.resize if self.size else None,
            "convert": self.channels is not None,
        }
        return ImageProcessor(
            shape, self.pad_to, mean, scale, largest=largest, resample=self.resample, **reading
        )

    def _all_added(self, sums: _Sums | None, arrays: list[tuple[int, Example]]) -> _Sums | None:
        """Return the sums with more arrays in them, all at once where they are grey pictures of one
        size."""
        plain = (
            None
            if self.channels or self.size
            else _stacked([example.inputs for _, example in arrays])
        )
        if plain is not None and (sums is None or (1, *plain.shape[1:]) == sums.shape):
            _, height, width = plain.shape
            sums = sums or _Sums((1, height, width), np.zeros(1), np.zeros(1))
            sums.add(plain[None], moments=self.normalise == "standard")
            return sums
        for number, example in arrays:
            sums = self._added(sums, number, example)
        return sums

    def _added(self, sums: _Sums | None, number: int, example: Example) -> _Sums:
        """Return the sums with one more picture in them."""
        where = example.origin or _where(example.inputs, number)
        pixels = _pixels(
            example.inputs, where, self.channels, self.size, self.resize, self.resample
        )
        if sums is None:
            channels, height, width = pixels.shape
            sums = _Sums((channels, height, width), np.zeros(channels), np.zeros(channels))
        if pixels.shape != sums.shape:
            raise _other_shape(where, pixels.shape, sums.shape)
        sums.add(pixels, moments=self.normalise == "standard")
        return sums

    @classmethod
    def load(cls, folder: Path) -> ImageProcessor:
        """Return the processor that was saved to ``folder``."""
        return ImageProcessor.load(folder)


@dataclass
class _Sums:
    """What scaling is learned from: sums over all pixels of each channel (C,), in fp64."""

    shape: Shape
    totals: NDArray[np.float64]
    squares: NDArray[np.float64]
    pixels: int = 0
    largest: float = 0.0

    def add(self, picture: NDArray[Any], *, moments: bool) -> None:
        """Take in a picture (C, H, W); without ``moments`` only its largest value and its number of
        pixels."""
        flat = picture.reshape(len(picture), -1)
        if moments:
            totals, squares = _moments(flat)
            self.totals += totals
            self.squares += squares
        self.pixels += flat.shape[1]
        self.largest = max(self.largest, float(flat.max()))

    def scaling(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel; a constant one is only shifted."""
        mean = self.totals / self.pixels
        spread = np.sqrt(np.maximum(self.squares / self.pixels - mean**2, 0.0))
        return mean.tolist(), np.where(spread > 0, spread, 1.0).tolist()


def _moments(flat: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sums over (C, pixels) of the values and of their squares, (C,) each."""
    if flat.dtype != np.uint8:
        values = flat.astype(np.float64)
        return values.sum(1), np.square(values).sum(1)
    grey, counts = (
        np.arange(256.0),
        np.stack([np.bincount(channel, minlength=256) for channel in flat]),
    )
    return counts @ grey, counts @ np.square(grey)  # counted, which is much quicker


def _stacked(arrays: Sequence[Any]) -> NDArray[Any] | None:
    """Return arrays as one (N, H, W) if all are pictures of one grey channel and one size."""
    first = np.shape(arrays[0]) if len(arrays) else ()
    if len(first) != 2 or any(
        not isinstance(each, np.ndarray) or each.shape != first for each in arrays
    ):
        return None
    return np.stack(arrays)


def _keep(files: list[_File], number: int, example: Example) -> None:
    """Keep the examples whose names have the largest hashes: a sample that does not depend on their
    order."""
    entry = (hashlib.blake2b(example.name.encode(), digest_size=8).digest(), number, example)
    if len(files) < _SAMPLE:
        heapq.heappush(files, entry)
    else:
        heapq.heappushpop(files, entry)


def _where(source: Any, number: int) -> str:
    return str(source) if isinstance(source, str | Path | StoredFile) else f"picture {number}"


def _columns(
    mean: Sequence[float], scale: Sequence[float], like: Tensor | None = None
) -> list[Tensor]:
    options = (
        {"dtype": torch.float32} if like is None else {"dtype": like.dtype, "device": like.device}
    )
    return [torch.tensor(each, **options)[:, None, None] for each in (mean, scale)]


def _pixels(
    source: Any,
    where: str,
    channels: int | None,
    size: tuple[int, int] | None,
    resize: Resize | None,
    resample: Resample,
) -> NDArray[Any]:
    """Return a picture (C, H, W) with its own values, decoded, converted and resized as far as that
    is asked for."""
    found = read_picture(source, where, channels) if is_picture(source) else np.asarray(source)
    if found.ndim != 2 and (found.ndim != 3 or found.shape[2] not in (1, 3, 4)):
        problem = (
            f"has shape {found.shape}; allowed: (height, width) or (height, width, 1, 3 or 4"
            " channels)"
        )
        raise DataError(where, problem, "Reshape the inputs")
    picture = found[None] if found.ndim == 2 else np.moveaxis(found, 2, 0)
    picture = picture.astype(np.float32, copy=False)
    if channels == 1 and len(picture) > 1:
        picture = np.tensordot(np.asarray(_GREY, np.float32), picture[:3], 1)[None]
    elif channels == 3:
        picture = np.repeat(picture, 3, axis=0) if len(picture) == 1 else picture[:3]
    if size is not None and resize is not None and picture.shape[1:] != tuple(size):
        whole = torch.from_numpy(np.require(picture, requirements=["C", "W"]))
        picture = _resized(whole, size, resize, resample).numpy()
    return np.require(picture, requirements=["C", "W"])


def _resized(picture: Tensor, size: tuple[int, int], resize: Resize, resample: Resample) -> Tensor:
    """Return (C, *size) of a picture (C, H, W): interpolation over the area that a new pixel
    covers."""
    (height, width), (rows, columns) = picture.shape[1:], size
    if resize != "stretch":
        choose = max if resize == "crop" else min
        factor = choose(rows / height, columns / width)
        rows, columns = max(1, round(height * factor)), max(1, round(width * factor))
    mode = "bilinear" if resample == "linear" else "bicubic"
    found = F.interpolate(picture[None], (rows, columns), mode=mode, antialias=True)[0]
    found = (
        found if resample == "linear" else found.clamp(float(picture.min()), float(picture.max()))
    )
    top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    if resize == "crop":
        return found[:, -top : size[0] - top, -left : size[1] - left]
    return F.pad(found, (left, size[1] - columns - left, top, size[0] - rows - top))


def _other_shape(where: str, found: tuple[int, ...], shape: Shape) -> DataError:
    own = f"{found[1]} x {found[2]} pixels and {found[0]} channels"
    problem = f"has {own}; the others {shape[1]} x {shape[2]} and {shape[0]}"
    return DataError(
        where, problem, "Set processor.size, or processor.channels, or give pictures of one kind"
    )
