"""Pictures of one size as tensors, scaled by what the training split shows.

Shape legend: N pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt, model_validator
from torch import Tensor

from groundup.contracts.processors import InputProcessor, ProcessorConfig
from groundup.core.errors import DataError
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.core.values import Batch, Example
from groundup.media.decoding_threads import for_each
from groundup.media.images import is_picture
from groundup.media.picture_fit import Frame, Resample, Resize
from groundup.processors.picture_description import describe, describe_to_huggingface
from groundup.processors.picture_pixels import (
    PictureForm,
    Shape,
    is_stored,
    name_picture,
    other_shape,
    stack_grey,
)
from groundup.processors.picture_scale import (
    FileSample,
    PictureSums,
    as_columns,
    find_depth,
    note_conversions,
    scaling_of,
    write_scaled,
)
from groundup.processors.saved_files import saved_settings, write_json

__all__ = ["ImageConfig", "ImageProcessor"]

# Arrays that are looked at at a time.
_TOGETHER = 4096


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
        depth: How many of 16 bits a channel are used, in files that have as many.
        notes: What was converted in the training pictures.
        whole_numbers: As ``PictureForm`` has it; not in runs of before.
        shorter: As ``PictureForm`` has it.
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
        depth: int = 16,
        notes: Sequence[str] = (),
        whole_numbers: bool = True,
        shorter: int | None = None,
    ) -> None:
        self.whole_numbers = whole_numbers
        self.shorter = shorter
        self.depth = depth
        self.notes = tuple(notes)
        self.shape = shape
        self.pad_to = pad_to
        self.mean = tuple(mean)
        self.scale = tuple(scale)
        self.largest = largest
        self.resize: Resize | None = resize
        self.convert = convert
        self.resample: Resample = resample
        self._form = PictureForm(
            shape[0] if convert else None,
            shape[1:] if resize else None,
            resize or "stretch",
            resample,
            depth,
            whole_numbers,
            shorter,
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.shape[0], *(self.pad_to or self.shape[1:]))

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``inputs`` (N, C, H, W) float32 of paths, bytes of files, Pillow images or arrays.

        Raises:
            DataError: If a picture cannot be read, or has another shape than those the processor
                was fitted to.
        """
        return {"inputs": self.encode_placed(inputs)[0]}

    def encode_placed(self, inputs: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return what ``encode_inputs`` does, and float32 (N, 4) where the places of each picture
        are in it, as ``Frame`` says."""
        values = torch.empty(len(inputs), *self.input_shape)
        frames = torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(len(inputs), 1)
        height, width = self.shape[1:]
        top = (values.shape[2] - height) // 2
        left = (values.shape[3] - width) // 2
        inside = values[:, :, top : top + height, left : left + width]
        if inside.shape != values.shape:
            values.zero_()
        mean, scale = as_columns(self.mean, self.scale, values)
        # Thousands of small arrays are copied at once instead of one by one.
        plain = None if self.convert or self.resize else stack_grey(inputs)
        if plain is not None and (1, *plain.shape[1:]) == self.shape:
            inside[:, 0] = torch.from_numpy(plain)
            inside.sub_(mean).div_(scale)
        else:
            # By NumPy, which has no threads of its own.
            cells, places = inside.numpy(), frames.numpy()

            def read(number: int) -> None:
                pixels, places[number] = self._read(inputs[number], number)
                write_scaled(cells[number], pixels, mean, scale)

            for_each(read, len(inputs), parallel=any(map(is_stored, inputs)))
        frames += torch.tensor([0.0, 0.0, left, top])
        return values, frames

    def _read(self, source: Any, number: int) -> tuple[NDArray[np.float32], Frame]:
        where = name_picture(source, number)
        pixels, frame = self._form.read_placed(source, where)
        if pixels.shape != self.shape:
            raise other_shape(where, pixels.shape, self.shape)
        if self.largest != 255.0 and is_stored(source):
            # It was fitted to arrays that say white with another number.
            return pixels * np.float32(self.largest / 255.0), frame
        return pixels, frame

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Return (N, C, H, W) with 0 for black and 1 for white, of what ``encode_inputs`` gave."""
        mean, scale = as_columns(self.mean, self.scale, inputs)
        return (inputs * scale + mean) / self.largest

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Return what a model reads, of pixels between 0 and 1: the reverse of ``to_pixels``."""
        mean, scale = as_columns(self.mean, self.scale, pixels)
        return (pixels * self.largest - mean) / scale

    def save(self, folder: Path) -> None:
        """Write processor.json."""
        folder.mkdir(parents=True, exist_ok=True)
        saved = {
            "name": "image",
            "shape": self.shape,
            "pad_to": self.pad_to,
            "mean": self.mean,
            "scale": self.scale,
            "largest": self.largest,
            "resize": self.resize,
            "convert": self.convert,
            "resample": self.resample,
            "depth": self.depth,
            "notes": self.notes,
            "whole_numbers": self.whole_numbers,
            "resize_shorter": self.shorter,
        }
        write_json(folder / "processor.json", saved)

    def to_huggingface(self) -> dict[str, Any] | None:
        """Return preprocessor_config.json; None where pictures are cropped or padded."""
        return describe_to_huggingface(self)

    def describe(self) -> dict[str, Any]:
        """Return how pictures become tensors, as ``DescribesPictures`` says it."""
        return describe(self)

    @classmethod
    def load(cls, folder: Path) -> ImageProcessor:
        """Return the processor that ``save`` wrote to ``folder``.

        Raises:
            DataError: If processor.json is missing or is not what ``save`` writes.
        """
        with saved_settings(folder) as saved:
            channels, height, width = saved["shape"]
            pad_to = (int(saved["pad_to"][0]), int(saved["pad_to"][1])) if saved["pad_to"] else None
            return cls(
                (channels, height, width),
                pad_to,
                saved["mean"],
                saved["scale"],
                largest=saved["largest"],
                resize=saved["resize"],
                convert=saved["convert"],
                # Which older runs do not name.
                resample=saved.get("resample", "linear"),
                depth=saved.get("depth", 16),
                notes=saved.get("notes", ()),
                # trained on pixels that are no whole numbers
                whole_numbers=saved.get("whole_numbers", False),
                shorter=saved.get("resize_shorter"),
            )


@processor("image")
class ImageConfig(ProcessorConfig):
    """Pictures brought to one size, and scaled by what the training split shows."""

    reads: ClassVar[Literal["texts", "examples"]] = "examples"
    size: tuple[PositiveInt, PositiveInt] | None = setting(
        None, "Height and width to resize to; null: all pictures must have one size"
    )
    resize: Resize = setting(
        "stretch",
        "stretch: whatever the proportions; crop: the middle is kept; pad: black bars are added",
    )
    resize_shorter: int | None = setting(
        None,
        "Pixels of the shorter side before the middle is kept, as 256; null: as cover the size",
        ge=1,
        applies_when={"resize": ("crop",)},
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
        # ``applies_when`` compares with values that are listed, which any size is not.
        for name, value, default in (
            ("resize", self.resize, "stretch"),
            ("resample", self.resample, "linear"),
        ):
            if self.size is None and value != default:
                raise ValueError(f"{name} has no effect without size. Give size, or remove {name}")
        if self.resize_shorter is not None and self.size and self.resize_shorter < max(self.size):
            raise ValueError(
                f"resize_shorter is {self.resize_shorter}, less than the size {list(self.size)}."
                f" Give {max(self.size)} or more"
            )
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
        sums: PictureSums | None = None
        # Decoding is slow: for a scale a sample of the files is enough.
        files = FileSample()
        arrays: list[tuple[int, Example]] = []
        for number, example in enumerate(texts()):
            if is_picture(example.inputs):
                files.add(number, example)
            else:
                arrays.append((number, example))
            if len(arrays) == _TOGETHER:
                sums = self._add_all(sums, arrays)
                arrays = []
        sums = self._add_all(sums, arrays)
        largest = None if sums is None else sums.largest
        chosen = list(files)
        depth = find_depth([example.inputs for _, example in chosen])
        seen: Counter[str] = Counter()
        for number, example in chosen:
            largest = 255.0
            sums = self._add(sums, number, example, depth, seen)
        if sums is None:
            raise DataError(
                "recipe.processor", "there are no training examples", "Check the data section"
            )
        height, width = sums.shape[1:]
        if self.pad_to is not None and (self.pad_to[0] < height or self.pad_to[1] < width):
            raise DataError(
                "recipe.processor.pad_to",
                f"the pictures have {height} x {width} pixels, more than {self.pad_to[0]} x"
                f" {self.pad_to[1]}",
                "Choose a larger size",
            )
        # 1 where all pictures are black.
        mean, scale = scaling_of(sums, largest or 1.0, self.normalise, self.mean, self.std)
        return ImageProcessor(
            sums.shape,
            self.pad_to,
            mean,
            scale,
            largest=largest or 1.0,
            resize=self.resize if self.size else None,
            convert=self.channels is not None,
            resample=self.resample,
            depth=depth,
            notes=note_conversions(seen, len(chosen), depth),
            shorter=self.resize_shorter,
        )

    def _add_all(
        self, sums: PictureSums | None, arrays: list[tuple[int, Example]]
    ) -> PictureSums | None:
        """Return the sums with more arrays in them, all at once where they are grey pictures of one
        size."""
        plain = None
        if not self.channels and not self.size:
            plain = stack_grey([example.inputs for _, example in arrays])
        if plain is not None and (sums is None or (1, *plain.shape[1:]) == sums.shape):
            _, height, width = plain.shape
            sums = sums or PictureSums((1, height, width))
            sums.add(plain[None], moments=self.normalise == "standard")
            return sums
        for number, example in arrays:
            sums = self._add(sums, number, example)
        return sums

    def _add(
        self,
        sums: PictureSums | None,
        number: int,
        example: Example,
        depth: int = 16,
        seen: Counter[str] | None = None,
    ) -> PictureSums:
        """Return the sums with one more picture in them."""
        where = example.origin or name_picture(example.inputs, number)
        form = PictureForm(
            self.channels, self.size, self.resize, self.resample, depth, shorter=self.resize_shorter
        )
        pixels = form.read(example.inputs, where, seen)
        if sums is None:
            channels, height, width = pixels.shape
            sums = PictureSums((channels, height, width))
        if pixels.shape != sums.shape:
            raise other_shape(where, pixels.shape, sums.shape)
        sums.add(pixels, moments=self.normalise == "standard")
        return sums

    @classmethod
    def load(cls, folder: Path) -> ImageProcessor:
        """Return the processor that was saved to ``folder``."""
        return ImageProcessor.load(folder)
