"""Speech changed at random: its speed, loudness and background, and its features blanked in
stretches.

Shape legend: B samples, S sound samples, T frames, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from groundup.core.errors import RecipeError
from groundup.core.settings import Settings, setting
from groundup.media.augmentation.draws import Draws
from groundup.media.augmentation.sequences import draw_stretch
from groundup.media.resampling import resample

__all__ = ["SoundAugment", "change_sounds", "mask_features"]

# Speeds are in whole percents: each has a filter, of which there are then few.
_PERCENT = 100
_OF_SAMPLES = ("speed", "gain_db", "noise_snr_db")


class SoundAugment(Settings):
    """How training sounds are changed at random, differently each time. Nothing is changed in
    validation.

    Source:
        Ko et al., 2015, "Audio augmentation for speech recognition": speed; Park et al., 2019,
        "SpecAugment" (arXiv:1904.08779), section 2: masks, without time warping.
    """

    speed: float = setting(
        0.0,
        "Sounds: played faster or slower by up to this share, in steps of 0.01; the pitch changes"
        " as well",
        ge=0,
        le=0.5,
    )
    gain_db: float = setting(
        0.0, "Sounds: louder or quieter by up to this many decibels", ge=0, le=40
    )
    noise_snr_db: tuple[float, float] | None = setting(
        None,
        "Sounds: white noise is added, so that speech is between so many decibels above it: the"
        " least and the most; null: none",
    )
    time_masks: int = setting(0, "How many stretches of frames are blanked", ge=0, le=20)
    time_mask: float = setting(0.05, "Each is of up to this share of a sound's frames", gt=0, le=1)
    frequency_masks: int = setting(
        0, "How many bands of neighbouring features are blanked", ge=0, le=20
    )
    frequency_mask: float = setting(0.15, "Each is of up to this share of the features", gt=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> SoundAugment:
        range_db = self.noise_snr_db
        if range_db is not None and not -20 <= range_db[0] <= range_db[1] <= 100:
            raise ValueError(
                f"noise_snr_db is {list(range_db)}; allowed: two numbers from -20 to 100, the"
                " smaller one first. Swap or change them"
            )
        fields = type(self).model_fields
        for name in ("time_mask", "frequency_mask"):
            values = dict(self)
            if values[name] != fields[name].default and not values[f"{name}s"]:
                raise ValueError(f"{name} has no effect with {name}s: 0. Set {name}s, or remove it")
        return self

    @property
    def used(self) -> tuple[str, ...]:
        """The names of the settings that change something."""
        sizes = ("time_mask", "frequency_mask")
        return tuple(name for name, value in self if value and name not in sizes)

    @property
    def changes_samples(self) -> bool:
        """Whether the sound itself is changed, before features are made of it."""
        return any(name in _OF_SAMPLES for name in self.used)

    def check(self, *, given: bool) -> None:
        """Raise an error for what would do nothing.

        Args:
            given: The data are features already, and no sounds.

        Raises:
            RecipeError: Naming the setting.
        """
        for name in self.used if given else ():
            if name in _OF_SAMPLES:
                raise RecipeError(
                    f"recipe.task.augmentation.{name}",
                    "does nothing where the data are features already",
                    "Remove it; allowed here: time_masks, frequency_masks",
                )


def change_sounds(
    settings: SoundAugment, sounds: Sequence[NDArray[Any]], samples: NDArray[np.int64], seed: int
) -> list[NDArray[np.float32]]:
    """Return sounds at another speed, with noise, and louder or quieter.

    Args:
        settings: What is done.
        sounds: (S,) each, of B examples; they are left as they are.
        samples: (B,) the numbers of the samples, which alone decide what is drawn.
        seed: The run's.
    """
    found = []
    for sound, number in zip(sounds, samples, strict=True):
        # A sample alone: what is drawn for it does not depend on those next to it.
        draws = Draws(seed, np.array([number]))
        changed = np.asarray(sound, np.float64)
        if settings.speed:
            # Faster is fewer samples: as if it had been recorded at a higher rate.
            percent = round(_PERCENT * (1 + float(draws.symmetric("speed", settings.speed)[0])))
            changed = resample(changed, percent, _PERCENT)
        if settings.noise_snr_db is not None:
            changed = _add_noise(changed, settings.noise_snr_db, draws)
        if settings.gain_db:
            changed = changed * 10 ** (float(draws.symmetric("gain", settings.gain_db)[0]) / 20)
        found.append(changed.astype(np.float32))
    return found


def _add_noise(
    sound: NDArray[np.float64], range_db: tuple[float, float], draws: Draws
) -> NDArray[np.float64]:
    low, high = range_db
    above = low + (high - low) * float(draws("noise level")[0, 0])
    # Silence stays silent: no noise is so many decibels below nothing.
    power = float(np.mean(sound**2)) if len(sound) else 0.0
    noise = draws.normal("background", (len(sound),))[0].numpy()
    noisy: NDArray[np.float64] = sound + noise * (power * 10 ** (-above / 10)) ** 0.5
    return noisy


def mask_features(settings: SoundAugment, inputs: Tensor, lengths: Tensor, draws: Draws) -> Tensor:
    """Return features (B, T, F) with stretches of time and bands of neighbouring features zero.

    Args:
        settings: What is done.
        inputs: (B, T, F), padded.
        lengths: (B,) frames of each.
        draws: The samples' random numbers.
    """
    for number in range(settings.time_masks):
        inside = draw_stretch(
            f"time {number}", settings.time_mask, lengths.numpy(), inputs.shape[1], draws
        )
        inputs = inputs.masked_fill(inside[:, :, None], 0.0)
    features = np.full(len(inputs), inputs.shape[2])
    for number in range(settings.frequency_masks):
        inside = draw_stretch(
            f"frequency {number}", settings.frequency_mask, features, inputs.shape[2], draws
        )
        inputs = inputs.masked_fill(inside[:, None], 0.0)
    return inputs
