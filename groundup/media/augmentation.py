"""Training examples changed at random: what may be set, and the change of a micro-batch.

Every sample is changed by numbers that are a function of the run's seed and the sample's own
number, so results depend neither on the micro-batch nor on where a run was stopped.

Shape legend: B samples, C channels, H rows, W columns, T frames or tokens, F numbers a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from groundup.core import seeding
from groundup.core.errors import RecipeError
from groundup.core.settings import Settings, setting
from groundup.core.values import Batch
from groundup.media import pixels as px

__all__ = ["Augment", "Draws", "augmented"]

_WARPS = ("rotate_degrees", "scale", "shift", "crop", "flip", "vertical_flip", "randaugment")
_COLOURS = ("brightness", "contrast", "saturation", "hue", "randaugment")
_READ_BY: dict[str, tuple[str, ...]] = {
    "pictures": (*_WARPS, *_COLOURS[:-1], "erase", "noise", "mixup", "cutmix"),
    "frames of varying length": ("time_mask", "frequency_mask", "noise"),
    "tokens": ("token_dropout",),
    "numbers": ("noise", "mixup"),
}


class Augment(Settings):
    """How training examples are changed at random, each time anew. Nothing is changed in
    validation."""

    rotate_degrees: float = setting(
        0.0, "Pictures: turned by up to so many degrees either way", ge=0, le=180
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
        0, "Pictures: so many operations drawn from RandAugment's fourteen", ge=0, le=8
    )
    randaugment_magnitude: float = setting(9.0, "Their strength", gt=0, le=10)
    erase: float = setting(
        0.0, "Pictures: chance that a rectangle of 2% to 33% of the area is blanked", ge=0, le=1
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
    def _consistent(self) -> Augment:
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
        fields = type(self).model_fields
        names = (name for name in fields if getattr(self, name) != fields[name].default)
        return tuple(name for name in names if name != "randaugment_magnitude")

    def check(self, input_shape: tuple[int, ...], *, categories: bool = False) -> None:
        """Raise an error for what would do nothing with inputs of this shape, or cannot be done.

        Args:
            input_shape: (C, H, W), (0, F), (0,) of tokens or (I,), as processors have it.
            categories: Whether inputs have categorical columns, which cannot be blended.

        Raises:
            RecipeError: Naming the setting.
        """
        kind = _kind(input_shape)
        for name in self.used:
            where, remedy = (
                f"recipe.task.augmentation.{name}",
                f"Remove it; allowed here: {', '.join(_READ_BY[kind])}",
            )
            if name not in _READ_BY[kind]:
                raise RecipeError(where, f"does nothing for inputs that are {kind}", remedy)
            if name in ("saturation", "hue") and input_shape[0] != 3:
                raise RecipeError(
                    where,
                    f"needs three channels, and the pictures have {input_shape[0]}",
                    "Remove it",
                )
            if name == "mixup" and categories:
                raise RecipeError(where, "cannot blend categorical columns", "Remove it")


@dataclass(frozen=True)
class Draws:
    """Random numbers of a micro-batch's samples: functions of (seed, operation, sample number)."""

    seed: int
    samples: NDArray[np.int64]
    role: str = ""

    def __call__(self, operation: str, count: int = 1) -> NDArray[np.float64]:
        """Return (count, B) numbers in [0, 1)."""
        return seeding.uniforms(self.seed, f"augment {self.role}{operation}", self.samples, count)

    def symmetric(self, operation: str, largest: float) -> NDArray[np.float64]:
        """Return (B,) numbers between -largest and largest."""
        found: NDArray[np.float64] = (2 * self(operation)[0] - 1) * largest
        return found

    def beta(self, operation: str, a: float) -> NDArray[np.float64]:
        """Return (B,) numbers distributed as Beta(a, a).

        Source:
            Bailey, 1994, "Polar generation of random variates with the t-distribution", Mathematics
            of Computation 62 (206); 1/2 + t / (2 sqrt(2a + t^2)) of a t with 2a degrees of freedom
            is Beta(a, a).
        """
        radius, angle = self(operation, 2)
        with np.errstate(over="ignore", divide="ignore"):
            squared = np.minimum((1 - radius) ** (-1 / a) - 1, 1e300)
        cosine = np.cos(2 * np.pi * angle)
        t = cosine * np.sqrt(squared) / np.sqrt(1 + squared * cosine**2)
        found: NDArray[np.float64] = np.clip(0.5 + 0.5 * t, 0.0, 1.0)
        return found

    def normal(self, operation: str, shape: Sequence[int]) -> Tensor:
        """Return (B, *shape) standard normal numbers."""
        words = (
            seeding.generator(self.seed, f"augment {self.role}{operation}", int(n))
            for n in self.samples
        )
        return torch.stack([torch.randn(*shape, generator=word) for word in words])


def augmented(
    settings: Augment,
    batch: Batch,
    draws: Draws,
    partners: Callable[[], Batch],
    processor: Any,
) -> Batch:
    """Return the micro-batch with every sample changed.

    ``mixup`` and ``cutmix`` add ``labels_2`` and ``mix`` (B,): how much of a sample is its own, the
    rest being the partner's. Partners are augmented like the samples.

    Args:
        settings: What is done; it must have passed ``check``.
        batch: ``inputs`` or ``tokens``, ``lengths`` where these vary, and ``labels``. It is left as
            it is.
        draws: The samples' random numbers.
        partners: Returns as many other training examples.
        processor: The inputs' processor: of pictures ``to_pixels`` and ``from_pixels`` are called.
    """
    changed = _each(settings, batch, draws, processor)
    if not settings.mixup and not settings.cutmix:
        return changed
    other = _each(settings, partners(), Draws(draws.seed, draws.samples, "partner "), processor)
    inputs, mix = _mixed(settings, changed["inputs"], other["inputs"], draws)
    others = {f"{name}_2": other[name] for name in ("labels", "weights") if name in other}
    return changed | others | {"inputs": inputs, "mix": mix}


def _kind(shape: tuple[int, ...]) -> str:
    if len(shape) == 3:
        return "pictures"
    return (
        ("tokens" if shape == (0,) else "numbers")
        if len(shape) == 1
        else "frames of varying length"
    )


def _each(settings: Augment, batch: Batch, draws: Draws, processor: Any) -> Batch:
    if settings.token_dropout:
        return batch | _fewer_tokens(batch, settings.token_dropout, draws, processor)
    if "inputs" not in batch:
        return batch
    inputs = batch["inputs"]
    if inputs.dim() == 4:
        inputs = _pictures(settings, inputs, draws, processor)
    if settings.time_mask or settings.frequency_mask:
        inputs = _masked(settings, inputs, batch["lengths"], draws)
    if settings.noise:
        noise = (
            draws.normal("noise", inputs.shape[1:])
            if "lengths" not in batch
            else _frame_noise(inputs, batch, draws)
        )
        inputs = inputs + settings.noise * noise
    return batch | {"inputs": inputs}


# ----------------------------------------------------------------------------------------- pictures
def _pictures(settings: Augment, inputs: Tensor, draws: Draws, processor: Any) -> Tensor:
    """Colours first, then everything that moves pixels in one resampling, then erasing."""
    used = set(settings.used)
    warp = _Warp(len(inputs), inputs.shape[2], inputs.shape[3])
    if used & set(_COLOURS):
        pixels = _coloured(settings, processor.to_pixels(inputs).clamp(0, 1), draws)
        for number in range(settings.randaugment):
            pixels = _drawn_operation(
                pixels, warp, settings.randaugment_magnitude / 10, draws, number
            )
        inputs = processor.from_pixels(pixels)
    if used & set(_WARPS):
        _move(settings, warp, draws)
        inputs = px.resampled(inputs, warp.matrices, warp.shifts)
    return _erased(inputs, settings.erase, draws) if settings.erase else inputs


class _Warp:
    """Maps from places in the new pictures to places in the old ones, one a sample, being put
    together."""

    def __init__(self, count: int, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.matrices = np.broadcast_to(np.eye(2), (count, 2, 2)).copy()
        self.shifts = np.zeros((count, 2))

    def then(self, a: Any = 1.0, b: Any = 0.0, c: Any = 0.0, d: Any = 1.0) -> None:
        """Let ((a, b), (c, d)), numbers or (B,), act on the new picture's places first."""
        (m, n), (o, p) = self.matrices.transpose(1, 2, 0)
        self.matrices = np.stack(
            [m * a + n * c, m * b + n * d, o * a + p * c, o * b + p * d], -1
        ).reshape(-1, 2, 2)

    def turn(self, degrees: NDArray[np.float64]) -> None:
        angle = np.deg2rad(degrees)
        self.then(np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle))

    def shift(self, x: Any, y: Any) -> None:
        """Move by pixels of the old picture, numbers or (B,)."""
        self.shifts += np.stack(np.broadcast_arrays(x, y, np.zeros(len(self.shifts)))[:2], -1)


def _move(settings: Augment, warp: _Warp, draws: Draws) -> None:
    if settings.rotate_degrees:
        warp.turn(draws.symmetric("rotate", settings.rotate_degrees))
    if settings.scale != (1.0, 1.0):
        low, high = settings.scale
        factor = 1 / (low + (high - low) * draws("scale")[0])
        warp.then(factor, 0.0, 0.0, factor)
    for name, share in (("shift", settings.shift), ("crop", settings.crop)):
        if share:
            across, down = (
                (2 * draws(name, 2) - 1) * share * np.array([[warp.width], [warp.height]])
            )
            warp.shift(*(np.round([across, down]) if name == "crop" else (across, down)))
    mirrored = [np.where(draws(name)[0] < 0.5, -1.0, 1.0) for name in ("flip", "vertical_flip")]
    warp.then(
        mirrored[0] if settings.flip else 1.0,
        0.0,
        0.0,
        mirrored[1] if settings.vertical_flip else 1.0,
    )


def _coloured(settings: Augment, pixels: Tensor, draws: Draws) -> Tensor:
    changes = (
        ("brightness", px.brightened),
        ("contrast", px.contrasted),
        ("saturation", px.saturated),
    )
    for name, change in changes:
        if strength := getattr(settings, name):
            pixels = change(pixels, torch.from_numpy(1 + draws.symmetric(name, strength)))
    if settings.hue:
        pixels = px.hue_turned(pixels, torch.from_numpy(draws.symmetric("hue", settings.hue)))
    return pixels


def _drawn_operation(
    pixels: Tensor, warp: _Warp, strength: float, draws: Draws, number: int
) -> Tensor:
    """Return pixels after one of RandAugment's operations each; one that moves pixels is added to
    the warp.

    Source:
        Cubuk et al., 2019, "RandAugment" (arXiv:1909.13719), section 3 and figure 2. Departs from
        it: all that moves pixels is done together at the end, in one resampling.
    """
    choice, sign = draws(f"randaugment {number}", 2)
    operation, signed = (choice * 14).astype(np.int64), np.where(sign < 0.5, -strength, strength)
    warp.turn(np.where(operation == 0, 30 * signed, 0.0))
    warp.then(
        1.0,
        np.where(operation == 1, 0.3 * signed, 0.0),
        np.where(operation == 2, 0.3 * signed, 0.0),
        1.0,
    )
    across, down = (np.where(operation == n, 0.33 * signed, 0.0) for n in (3, 4))
    warp.shift(across * warp.width, down * warp.height)
    factor = torch.from_numpy(1 + 0.9 * signed)
    changes: dict[int, Callable[[Tensor, Tensor], Tensor]] = {
        5: lambda chosen, factors: px.brightened(chosen, factors),
        6: lambda chosen, factors: px.contrasted(chosen, factors),
        7: lambda chosen, factors: px.saturated(chosen, factors),
        8: lambda chosen, factors: px.sharpened(chosen, factors),
        9: lambda chosen, factors: px.solarized(chosen, torch.full_like(factors, 1 - strength)),
        10: lambda chosen, factors: px.posterized(
            chosen, torch.full_like(factors, 8 - 4 * strength)
        ),
        11: lambda chosen, factors: px.autocontrasted(chosen),
        12: lambda chosen, factors: px.equalized(chosen),
    }  # 13 changes nothing
    pixels = pixels.clone()
    for which, change in changes.items():
        rows = torch.from_numpy(np.flatnonzero(operation == which))
        if len(rows):
            pixels[rows] = change(pixels[rows], factor[rows])
    return pixels


def _erased(inputs: Tensor, chance: float, draws: Draws) -> Tensor:
    """Return pictures with a rectangle of zeros.

    Source:
        Zhong et al., 2017, "Random erasing data augmentation" (arXiv:1708.04896), algorithm 1.
        Departs from it: zeros instead of random values, and a rectangle too large for the picture
            is cut off at its edges.
    """
    drawn, area, aspect, across, down = draws("erase", 5)
    height, width = inputs.shape[2:]
    size = (0.02 + 0.31 * area) * height * width * (drawn < chance)
    tall = np.sqrt(size * np.exp((2 * aspect - 1) * np.log(1 / 0.3)))
    wide = np.divide(size, tall, out=np.zeros_like(size), where=tall > 0)
    box = _Box.of(
        across, down, np.minimum(wide, width), np.minimum(tall, height), height, width, inside=True
    )
    return inputs.masked_fill(box.mask(height, width), 0.0)


@dataclass(frozen=True)
class _Box:
    """Rectangles in whole pixels, (B,) each; right and bottom are the first columns and rows
    outside."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    top: NDArray[np.int64]
    bottom: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        x: NDArray[Any],
        y: NDArray[Any],
        wide: NDArray[Any],
        tall: NDArray[Any],
        height: int,
        width: int,
        *,
        inside: bool,
    ) -> _Box:
        """Return boxes at shares x and y of the picture: wholly inside, or with their middle there
        and cut off."""
        left = x * (width - wide) if inside else x * width - wide / 2
        top = y * (height - tall) if inside else y * height - tall / 2
        edges = ((left, width), (left + wide, width), (top, height), (top + tall, height))
        return cls(*(np.clip(np.round(edge), 0, limit).astype(np.int64) for edge, limit in edges))

    def mask(self, height: int, width: int) -> Tensor:
        """Return (B, 1, H, W): True inside."""
        x, y = np.arange(width), np.arange(height)
        columns = (x >= self.left[:, None]) & (x < self.right[:, None])
        rows = (y >= self.top[:, None]) & (y < self.bottom[:, None])
        return torch.from_numpy((rows[:, :, None] & columns[:, None])[:, None])


# ------------------------------------------------------------------------------------ two of a kind
def _mixed(settings: Augment, own: Tensor, other: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Return inputs made of two, and how much of each is its own, (B,) float32.

    Source:
        Zhang et al., 2017, "mixup: Beyond empirical risk minimization" (arXiv:1710.09412), section
        2; Yun et al., 2019, "CutMix" (arXiv:1905.04899), section 3. With both set, each sample gets
        one or the other, at equal chances.
    """
    cut = np.full(len(own), settings.cutmix > 0)
    if settings.mixup and settings.cutmix:
        cut = draws("mixup or cutmix")[0] < 0.5
    mixes = np.ones(len(own))
    if settings.mixup:
        mixes = np.where(cut, mixes, draws.beta("mixup", settings.mixup))
    blend = torch.from_numpy(mixes).float().view(-1, *[1] * (own.dim() - 1))
    inputs = blend * own + (1 - blend) * other
    if settings.cutmix:
        height, width = own.shape[2:]
        side = np.sqrt(1 - draws.beta("cutmix", settings.cutmix)) * cut
        x, y = draws("cutmix box", 2)
        mask = _Box.of(x, y, side * width, side * height, height, width, inside=False).mask(
            height, width
        )
        inputs = torch.where(mask, other, inputs)
        mixes = mixes * (1 - mask.flatten(1).sum(1).numpy() / (height * width))
    return inputs, torch.from_numpy(mixes).float()


# -------------------------------------------------------------------------------- frames and tokens
def _masked(settings: Augment, inputs: Tensor, lengths: Tensor, draws: Draws) -> Tensor:
    """Return frames (B, T, F) with a stretch of time and a band of neighbouring numbers zero.

    Source:
        Park et al., 2019, "SpecAugment" (arXiv:1904.08779), section 2, without time warping, with
        one mask of a kind.
    """
    numbers = np.full(len(inputs), inputs.shape[2])
    sizes = (
        (settings.time_mask, lengths.numpy(), "time"),
        (settings.frequency_mask, numbers, "frequency"),
    )
    for axis, (share, size, name) in enumerate(sizes):
        if share:
            width, place = draws(f"{name} mask", 2)
            wide = np.floor(width * (share * size + 1)).astype(np.int64)
            first = np.floor(place * (size - wide + 1)).astype(np.int64)
            at = np.arange(inputs.shape[1 + axis])
            inside = torch.from_numpy((at >= first[:, None]) & (at < (first + wide)[:, None]))
            inputs = inputs.masked_fill(inside[:, :, None] if axis == 0 else inside[:, None], 0.0)
    return inputs


def _frame_noise(inputs: Tensor, batch: Batch, draws: Draws) -> Tensor:
    """Return noise (B, T, F) that does not depend on how far the rows are padded, and is zero
    there."""
    noise = torch.zeros_like(inputs)
    for row, (length, number) in enumerate(
        zip(batch["lengths"].tolist(), draws.samples, strict=True)
    ):
        alone = Draws(draws.seed, np.array([number]), draws.role)
        noise[row, :length] = alone.normal("noise", (length, inputs.shape[2]))[0]
    return noise


def _fewer_tokens(batch: Batch, share: float, draws: Draws, processor: Any) -> Batch:
    """Return tokens (B, T) with their kinds, and lengths (B,), after each was removed with a
    chance; one stays."""
    tokens, lengths = batch["tokens"], batch["lengths"]
    places = torch.arange(tokens.shape[1])
    numbers = np.arange(tokens.shape[1])
    chance = draws("token dropout")
    drawn = seeding.scramble(
        numbers[None] + (chance[0][:, None] * 2**62).astype(np.uint64), 0
    ) >> np.uint64(11)
    keep = torch.from_numpy(drawn * 2.0**-53 >= share) & (places < lengths[:, None])
    if frame := getattr(processor, "frame", None):  # an encoder's first and last token
        keep |= torch.isin(tokens, torch.tensor(frame)) & (places < lengths[:, None])
    keep[:, 0] |= ~keep.any(1)
    order = (~keep).to(torch.int8).argsort(dim=1, stable=True)
    left = keep.sum(1)
    moved = tokens.gather(1, order)
    kinds = {name: batch[name].gather(1, order) for name in ("token_types",) if name in batch}
    return {
        **kinds,
        "tokens": moved.masked_fill(places >= left[:, None], processor.end_id),
        "lengths": left,
    }
