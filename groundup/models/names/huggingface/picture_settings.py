"""How pictures are prepared, as Hugging Face's preprocessor_config.json has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from groundup.core.errors import CheckpointError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "as_class", "picture_settings"]

# Pillow's numbers.
_RESAMPLE = {2: "linear", 3: "cubic"}

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""The mean of each channel over the pictures of ImageNet."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""The standard deviation of each channel there."""


def picture_settings(
    config: Mapping[str, Any],
    family: str,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    normalises: bool = True,
) -> dict[str, Any]:
    """Return the settings of processor ``image`` from the contents of preprocessor_config.json.

    Args:
        config: Its contents.
        family: How the names of the library's classes begin.
        size: Height and width, where the file does not say them.
        mean: Likewise.
        std: Likewise.
        normalises: Likewise, whether mean and std are applied.

    Raises:
        CheckpointError: If pictures are prepared in another way.
    """
    where = "preprocessor_config.json"
    kind = str(config.get("image_processor_type", f"{family}ImageProcessor"))
    # Before transformers 4.26.
    kind = kind.replace("FeatureExtractor", "ImageProcessor")
    given = config.get("size", {"height": size[0], "width": size[1]})
    resample = config.get("resample", 2)
    # Old files have one number for both sides; a shortest edge alone is another way of resizing.
    sides = given if isinstance(given, Mapping) else {"height": given, "width": given}
    height = sides.get("height")
    width = sides.get("width")
    resized = config.get("do_resize", True)
    # Also for the remedy, which says what to write.
    values = _normalisation(config, mean, std, normalises=normalises)
    known = kind.startswith(family) and not config.get("do_center_crop")
    if not known or (resized and not (height and width)):
        problem = f"{kind} with size {given}, do_center_crop {config.get('do_center_crop', False)}"
        raise CheckpointError(
            where,
            f"{problem}; supported: {family}ImageProcessor, height and width, no crop",
            _remedy(sides, size, values),
        )
    # Another interpolation gives other pixels: accuracy would fall without an error.
    if resample not in _RESAMPLE:
        raise CheckpointError(
            where,
            f"resample is {resample}; supported: 2 (bilinear), 3 (bicubic)",
            _remedy(sides, size, values),
        )
    if resized:
        values |= {"size": [height, width], "resample": _RESAMPLE[resample]}
    return values


def _normalisation(
    config: Mapping[str, Any], mean: Sequence[float], std: Sequence[float], *, normalises: bool
) -> dict[str, Any]:
    # Pixels here are shares of 255 before mean and deviation are applied, whatever the file's are.
    unit = 255.0
    if config.get("do_rescale", True):
        unit *= config.get("rescale_factor", 1 / 255)
    mean = config.get("image_mean") or mean
    std = config.get("image_std") or std
    if not config.get("do_normalize", normalises):
        mean = [0.0] * 3
        std = [1.0] * 3
    return {
        "channels": 1 if len(mean) == 1 else 3,
        "normalise": "given",
        "mean": [value / unit for value in mean],
        "std": [value / unit for value in std],
    }


def _remedy(sides: Mapping[str, Any], size: tuple[int, int], values: Mapping[str, Any]) -> str:
    """Return what to write instead: with a shortest edge, pictures scaled into a frame."""
    height = sides.get("shortest_edge") or size[0]
    width = sides.get("longest_edge") or size[1]
    extra = ", resize: pad" if "longest_edge" in sides else ""
    numbers = ", ".join(
        f"{name}: [{', '.join(f'{value:.4g}' for value in values[name])}]"
        for name in ("mean", "std")
    )
    return (
        "Name the processor in the recipe, such as processor: {name: image, size:"
        f" [{height}, {width}]{extra}, channels: {values['channels']}, normalise: given,"
        f" {numbers}}}"
    )


def as_class(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return preprocessor_config.json of a class that reads and writes boxes, from what the
    pictures' processor says.

    Args:
        values: Its contents, whatever class it names.
        name: Of the library's class.
    """
    # Sizes are fixed, so that nothing is to be padded.
    changed = {"image_processor_type": name, "format": "coco_detection", "do_pad": False}
    return {**values, **changed}
