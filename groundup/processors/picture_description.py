"""How pictures become tensors, said for other programs."""

from __future__ import annotations

from typing import Any, Protocol

from groundup.media.picture_fit import Resample, Resize
from groundup.processors.picture_pixels import Shape

__all__ = ["describe", "describe_to_huggingface"]


class _Reader(Protocol):
    """What is said of an ``ImageProcessor``."""

    shape: Shape
    pad_to: tuple[int, int] | None
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    largest: float
    resize: Resize | None
    resample: Resample
    shorter: int | None

    @property
    def input_shape(self) -> tuple[int, ...]: ...


def describe(processor: _Reader) -> dict[str, Any]:
    """Return what ``DescribesPictures`` says of pictures."""
    return {
        "shape": list(processor.input_shape),
        "channels": {1: "grey", 3: "RGB"}.get(processor.shape[0], "as stored"),
        "size": list(processor.shape[1:]),
        "resize": processor.resize,
        "resize_shorter": processor.shorter,
        "resample": processor.resample,
        "white": processor.largest,
        "mean": list(processor.mean),
        "std": list(processor.scale),
        "pad_to": None if processor.pad_to is None else list(processor.pad_to),
    }


def describe_to_huggingface(processor: _Reader) -> dict[str, Any] | None:
    """Return preprocessor_config.json; None where pictures are cropped or padded."""
    if processor.pad_to is not None or processor.resize in ("crop", "pad"):
        return None
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": processor.shape[1], "width": processor.shape[2]},
        # Pillow's numbers of the two.
        "resample": {"linear": 2, "cubic": 3}[processor.resample],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / processor.largest for value in processor.mean],
        "image_std": [value / processor.largest for value in processor.scale],
    }
