"""The settings of augmentation, and which of them mean something for which inputs."""

from __future__ import annotations

from pydantic import model_validator

from groundup.core.errors import RecipeError
from groundup.core.settings import Settings, setting

__all__ = ["COLOURS", "WARPS", "Augment", "PictureAugment"]

# RandAugment is in both: some of its operations move pixels, some change their colours.
WARPS = ("rotate_degrees", "scale", "shift", "crop", "flip", "vertical_flip", "randaugment")
COLOURS = ("brightness", "contrast", "saturation", "hue", "randaugment")
_HOW = ("randaugment_magnitude", "random_resized_crop_ratio")
_READ_BY: dict[str, tuple[str, ...]] = {
    "pictures": (
        *WARPS,
        *COLOURS[:-1],
        "random_resized_crop",
        "erase",
        "noise",
        "mixup",
        "cutmix",
    ),
    "frames of varying length": ("time_mask", "frequency_mask", "noise"),
    "tokens": ("token_dropout",),
    "numbers": ("noise", "mixup"),
}


class PictureAugment(Settings):
    """How pictures are moved, recoloured and blanked at random."""

    rotate_degrees: float = setting(
        0.0, "Pictures: turned by up to this many degrees either way", ge=0, le=180
    )
    scale: tuple[float, float] = setting(
        (1.0, 1.0), "Pictures: smallest and largest factor of enlargement"
    )
    shift: float = setting(
        0.0, "Pictures: moved by up to this share of their height and width", ge=0, lt=1
    )
    crop: float = setting(
        0.0,
        "Pictures: padded by this share on all sides, and cut out at random: a shift by whole"
        " pixels",
        ge=0,
        lt=1,
    )
    flip: bool = setting(False, "Pictures: every other one mirrored, left to right")
    vertical_flip: bool = setting(False, "Pictures: every other one mirrored, top to bottom")
    brightness: float = setting(
        0.0, "Pictures: brightness times 1 plus or minus up to this", ge=0, le=1
    )
    contrast: float = setting(
        0.0, "Pictures: contrast times 1 plus or minus up to this", ge=0, le=1
    )
    saturation: float = setting(
        0.0, "Coloured pictures: saturation times 1 plus or minus up to this", ge=0, le=1
    )
    hue: float = setting(
        0.0, "Coloured pictures: hue turned by up to this share of the circle", ge=0, le=0.5
    )
    randaugment: int = setting(
        0, "Pictures: how many operations are drawn from RandAugment's fourteen", ge=0, le=8
    )
    randaugment_magnitude: float = setting(9.0, "Their strength", gt=0, le=10)
    erase: float = setting(
        0.0, "Pictures: chance that a rectangle of 2% to 33% of the area is blanked", ge=0, le=1
    )

    @model_validator(mode="after")
    def _consistent(self) -> PictureAugment:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(
                f"scale is {list(self.scale)}; allowed: two factors above 0, the smaller one first."
                " Swap"
            )
        if self.randaugment_magnitude != 9.0 and not self.randaugment:
            raise ValueError(
                "randaugment_magnitude has no effect with randaugment: 0. Set randaugment, or"
                " remove it"
            )
        return self

    @property
    def used(self) -> tuple[str, ...]:
        """The names of the settings that change something."""
        # These change nothing by themselves, and are refused without what they are of.
        fields = type(self).model_fields
        return tuple(
            name for name, value in self if value != fields[name].default and name not in _HOW
        )


class Augment(PictureAugment):
    """How training examples are changed at random, differently each time. Nothing is changed in
    validation."""

    random_resized_crop: tuple[float, float] | None = setting(
        None,
        "Pictures: a part of each is read, drawn anew each time, and resized: the smallest and"
        " largest share of its area, as [0.08, 1.0] for ImageNet",
    )
    random_resized_crop_ratio: tuple[float, float] = setting(
        (0.75, 4 / 3), "Its smallest and largest width for a height of 1"
    )
    noise: float = setting(
        0.0, "Standard deviation of normal noise, in the units that the model reads", ge=0
    )
    mixup: float = setting(
        0.0, "Two examples blended; the share is from Beta(mixup, mixup); 0: never", ge=0
    )
    cutmix: float = setting(
        0.0, "A box from another picture, its area from Beta(cutmix, cutmix); 0: never", ge=0
    )
    time_mask: float = setting(0.0, "Frames: up to this share of them in a row blanked", ge=0, le=1)
    frequency_mask: float = setting(
        0.0, "Frames: up to this share of their neighbouring numbers blanked", ge=0, le=1
    )
    token_dropout: float = setting(0.0, "Tokens: each removed with this chance", ge=0, lt=1)

    @model_validator(mode="after")
    def _crop_fits(self) -> Augment:
        low, high = self.random_resized_crop or (1.0, 1.0)
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"random_resized_crop is {[low, high]}; allowed: two shares of the area above 0 and"
                " up to 1, the smaller one first. Correct it"
            )
        narrow, wide = self.random_resized_crop_ratio
        if not 0 < narrow <= wide:
            raise ValueError(
                f"random_resized_crop_ratio is {[narrow, wide]}; allowed: two numbers above 0, the"
                " smaller one first. Correct it"
            )
        default = type(self).model_fields["random_resized_crop_ratio"].default
        if self.random_resized_crop is None and (narrow, wide) != default:
            raise ValueError(
                "random_resized_crop_ratio has no effect without random_resized_crop. Set that, or"
                " remove it"
            )
        return self

    def check(self, input_shape: tuple[int, ...], *, categories: bool = False) -> None:
        """Raise an error for what would do nothing with inputs of this shape, or cannot be done.

        Args:
            input_shape: (C, H, W), (0, F), (0,) of tokens or (I,), as processors have it.
            categories: Whether inputs have categorical columns, which cannot be blended.

        Raises:
            RecipeError: Naming the setting.
        """
        kind = _kind_of(input_shape)
        for name in self.used:
            where = f"recipe.task.augmentation.{name}"
            if name not in _READ_BY[kind]:
                raise RecipeError(
                    where,
                    f"does nothing for inputs that are {kind}",
                    f"Remove it; allowed here: {', '.join(_READ_BY[kind])}",
                )
            if name in ("saturation", "hue") and input_shape[0] != 3:
                raise RecipeError(
                    where,
                    f"needs three channels, but the pictures have {input_shape[0]}",
                    "Remove it",
                )
            if name == "mixup" and categories:
                raise RecipeError(where, "cannot blend categorical columns", "Remove it")


def _kind_of(shape: tuple[int, ...]) -> str:
    if len(shape) == 3:
        return "pictures"
    if len(shape) == 2:
        return "frames of varying length"
    return "tokens" if shape == (0,) else "numbers"
