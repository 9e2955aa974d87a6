"""Dialled numbers: the tones are those of the keys, and each number follows from the seed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.sources.dialled_numbers import KEYS, DialledNumbers

LOW, HIGH = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
CACHE = Path("unused")


def read_keys(sound: np.ndarray[Any, Any], rate: int) -> str:
    """Return the keys of a sound without noise: by the loudest frequency of each band, where there
    is a tone."""
    size = rate // 50
    found = []
    for start in range(0, len(sound) - size, size // 2):
        part = sound[start : start + size]
        time = np.arange(size) / rate
        waves = np.exp(-2j * np.pi * np.outer((*LOW, *HIGH), time))
        strengths = np.abs(waves @ (part * np.hanning(size)))
        key = KEYS[4 * int(strengths[:4].argmax()) + int(strengths[4:].argmax())]
        found.append(key if np.abs(part).min(initial=1) >= 0 and part.std() > 0.02 else " ")
    words = "".join(found).split()
    # Where a frame is half a tone and half a pause, one key may be misread: the most are not.
    return "".join(max(set(word), key=word.count) for word in words)


@pytest.mark.slow
def test_clean_tones_are_those_of_the_keys() -> None:
    clean = DialledNumbers(
        numbers=40,
        snr_db=(80.0, 80.0),
        level_db=(-6.0, -6.0),
        tone_seconds=(0.1, 0.15),
        gap_seconds=(0.08, 0.2),
    )
    for example in clean.examples("train", CACHE):
        sound, rate = example.inputs
        assert read_keys(sound, rate) == example.target


def test_numbers_follow_from_the_seed_alone() -> None:
    def drawn(split: Any = "train", **settings: Any) -> list[Example]:
        return DialledNumbers(**{"numbers": 20, **settings}).examples(split, CACHE)

    few = drawn()
    again = drawn(numbers=30, held_out=7)
    for one, other in zip(few, again[:20], strict=True):
        assert (one.name, one.target) == (other.name, other.target)
        np.testing.assert_array_equal(one.inputs[0], other.inputs[0])
    assert [e.target for e in drawn(seed=1)] != [e.target for e in few]
    assert all(np.abs(e.inputs[0]).max() <= 1 and e.inputs[0].dtype == np.float32 for e in few)


@pytest.mark.slow
def test_no_number_is_on_two_sides() -> None:
    source = DialledNumbers(numbers=300, held_out=40, tested=30, lengths=(2, 3))
    assert source.splits() == ("train", "validation", "test")
    texts = {split: {e.target for e in source.examples(split, CACHE)} for split in source.splits()}
    assert not texts["train"] & texts["validation"]
    assert not texts["train"] & texts["test"]
    assert not texts["validation"] & texts["test"]
    card = source.card(CACHE)
    assert (card["train"]["sounds"], card["test"]["sounds"]) == (300, 30)
    assert (card["train"]["min_keys"], card["train"]["max_keys"]) == (2, 3)
    assert len(source.contents()) == 1


def test_noise_has_its_level() -> None:
    settings: dict[str, Any] = {"numbers": 5, "gap_seconds": (0.0, 0.0), "level_db": (-20.0, -20.0)}
    clean = DialledNumbers(snr_db=(90.0, 90.0), **settings).examples("train", CACHE)
    noisy = DialledNumbers(snr_db=(6.0, 6.0), **settings).examples("train", CACHE)
    for one, other in zip(clean, noisy, strict=True):
        noise = other.inputs[0] - one.inputs[0]
        assert 5 < 10 * np.log10(np.mean(one.inputs[0] ** 2) / np.mean(noise**2)) < 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lengths": [9, 3]}, r"lengths is \[9, 3\]; allowed: the smaller one first"),
        ({"snr_db": [9.0, 3.0]}, r"snr_db is \[9.0, 3.0\]"),
        ({"lengths": [0, 3]}, "lengths begins with 0; allowed: 1 or more"),
        ({"tone_seconds": [0.01, 0.1]}, "tone_seconds begins with 0.01; allowed: 0.02 or more"),
        ({"gap_seconds": [-0.1, 0.1]}, "gap_seconds begins with -0.1; allowed: 0.0 or more"),
        (
            {"lengths": [1, 2], "held_out": 15},
            "there are 144 numbers of 2 keys, of which 15 are to be",
        ),
    ],
    ids=str,
)
def test_settings_that_are_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(DialledNumbers, settings, "recipe.data")


def test_splits_that_are_empty() -> None:
    with pytest.raises(
        DataError, match=r"\(test\): no numbers are held out for it. Set data.tested"
    ):
        DialledNumbers().examples("test", CACHE)
    with pytest.raises(DataError, match=r"\(validation\): no numbers .* Set data.held_out"):
        DialledNumbers(held_out=0).examples("validation", CACHE)
