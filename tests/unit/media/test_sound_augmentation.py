"""Sounds and their features changed at random: what each setting does, and that a sample's number
alone decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.media.augmentation.draws import Draws
from groundup.media.augmentation.sounds import SoundAugment, change_sounds, mask_features

RATE = 8000
NUMBERS = np.arange(40)


def tone(hz: float = 1000.0, seconds: float = 0.5) -> np.ndarray[Any, Any]:
    return (0.1 * np.sin(2 * np.pi * hz * np.arange(round(RATE * seconds)) / RATE)).astype(
        np.float32
    )


def change(samples: Any = NUMBERS, seed: int = 0, **settings: Any) -> list[Any]:
    return change_sounds(SoundAugment(**settings), [tone()] * len(samples), samples, seed)


def test_another_speed_is_another_length_and_pitch() -> None:
    found = change(speed=0.1)
    lengths = np.array([len(each) for each in found])
    assert lengths.min() >= 4000 / 1.1
    assert lengths.max() <= 1 + 4000 / 0.9
    assert len(set(lengths.tolist())) > 10
    for each in found[:10]:
        pitch = np.abs(np.fft.rfft(each)).argmax() * RATE / len(each)
        assert abs(pitch - 1000 * 4000 / len(each)) < 3


def test_gain_is_in_decibels() -> None:
    gains = [20 * np.log10(np.abs(each).max() / 0.1) for each in change(gain_db=6.0)]
    assert min(gains) >= -6.001
    assert max(gains) <= 6.001
    assert max(gains) - min(gains) > 6


def test_noise_has_the_level_that_was_drawn() -> None:
    for each in change(noise_snr_db=(10.0, 20.0)):
        noise = each - tone()
        level = 10 * np.log10(np.mean(tone() ** 2) / np.mean(noise**2))
        assert 9.5 < level < 20.5
    # Nothing is so many decibels below silence.
    settings = SoundAugment(noise_snr_db=(10.0, 10.0))
    (silent,) = change_sounds(settings, [np.zeros(100)], NUMBERS[:1], 0)
    assert not silent.any()


@pytest.mark.parametrize(
    "settings", [{"speed": 0.1}, {"gain_db": 6.0}, {"noise_snr_db": (5.0, 20.0)}], ids=str
)
def test_a_sample_is_changed_by_its_number_alone(settings: dict[str, Any]) -> None:
    together = change(**settings)
    for number in (0, 7, 39):
        (alone,) = change(np.array([number]), **settings)
        np.testing.assert_array_equal(alone, together[number])
    (other,) = change(np.array([7]), seed=1, **settings)
    assert other.shape != together[7].shape or not np.array_equal(other, together[7])
    assert not np.array_equal(together[7], tone())


def test_masks_blank_stretches_within_each_sound() -> None:
    lengths = torch.tensor([20, 60, 100, 100] * 10)
    inputs = torch.ones(40, 100, 30)
    settings = SoundAugment(time_masks=2, time_mask=0.2, frequency_masks=1, frequency_mask=0.3)
    found = mask_features(settings, inputs, lengths, Draws(0, NUMBERS))
    times = (found == 0).all(2).sum(1)
    bands = (found == 0).all(1).sum(1)
    assert (times <= 0.4 * lengths + 2).all()
    assert int(bands.max()) <= 10
    assert int(times.max()) > 20
    assert int(bands.max()) > 5
    # What is blanked does not depend on how far the row is padded, or on the rows next to it.
    alone = mask_features(settings, inputs[1:2, :60], lengths[1:2], Draws(0, NUMBERS[1:2]))
    assert torch.equal(alone[0], found[1, :60])
    one = mask_features(SoundAugment(time_masks=1), inputs, lengths, Draws(0, NUMBERS))
    two = mask_features(SoundAugment(time_masks=2), inputs, lengths, Draws(0, NUMBERS))
    assert int((two == 0).sum()) > int((one == 0).sum()) > 0


def test_what_is_used() -> None:
    assert SoundAugment().used == ()
    assert SoundAugment(time_masks=1).used == ("time_masks",)
    assert not SoundAugment(time_masks=1).changes_samples
    assert SoundAugment(gain_db=3.0).changes_samples
    SoundAugment(time_masks=1).check(given=True)
    SoundAugment(gain_db=3.0).check(given=False)
    with pytest.raises(
        RecipeError, match=r"augmentation\.gain_db: does nothing where the data are"
    ):
        SoundAugment(gain_db=3.0).check(given=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_snr_db": [20.0, 5.0]}, "the smaller one first"),
        ({"time_mask": 0.2}, "time_mask has no effect with time_masks: 0"),
        ({"frequency_mask": 0.2}, "frequency_mask has no effect with frequency_masks: 0"),
        ({"speed": 0.9}, "less than or equal to 0.5"),
    ],
    ids=str,
)
def test_settings_that_are_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(SoundAugment, settings, "recipe.task.augmentation")
