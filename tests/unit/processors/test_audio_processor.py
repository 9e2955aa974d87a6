"""Sounds as features: brought to one rate, made spectra of, and normalised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.core.values import Example
from groundup.media.resampling import resample
from groundup.processors.audio import AudioConfig
from groundup.processors.spectrogram import differences
from groundup.runs.processor import load_processor


def tone(hz: float, rate: int = 8000, seconds: float = 0.25) -> np.ndarray[Any, Any]:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


# ----------------------------------------------------------------------------------------- features
@pytest.mark.parametrize(
    ("rate", "new_rate"),
    [
        (8000, 16000),
        (44100, 16000),
        pytest.param(11127, 16000, marks=pytest.mark.slow),
        (48000, 8000),
    ],
)
def test_a_tone_is_the_same_tone_at_another_rate(rate: int, new_rate: int) -> None:
    found, expected = resample(tone(1000, rate, 0.5), rate, new_rate), tone(1000, new_rate, 0.5)
    assert len(found) == -(-round(rate * 0.5) * new_rate // rate)
    inside = slice(new_rate // 20, -new_rate // 20)
    assert np.abs(found[: len(expected)] - expected)[inside].max() < 2e-4


def test_what_the_new_rate_cannot_hold_is_gone() -> None:
    found = resample(tone(5000, 16000, 0.5), 16000, 8000)
    assert np.abs(found[400:-400]).max() < 1e-3
    assert np.abs(resample(np.ones(4000), 16000, 8000)[200:-200] - 1).max() < 1e-12


def test_a_slope_is_its_difference() -> None:
    line = np.arange(10.0)[:, None] * [1.0, -2.0]
    np.testing.assert_allclose(differences(line)[2:-2], np.tile([1.0, -2.0], (6, 1)))


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({}, 13),
        ({"deltas": 2}, 39),
        ({"features": "log_mel", "deltas": 1}, 80),
        ({"normalise": "each_sound"}, 13),
    ],
)
def test_features_are_normalised_saved_and_alike_alone(
    settings: dict[str, Any], width: int, tmp_path: Path
) -> None:
    examples = [
        Example(str(n), (tone(200 + 100 * n, seconds=0.3 + 0.1 * n), 8000)) for n in range(5)
    ]
    fitted = AudioConfig(**settings).fit(lambda: iter(examples))
    assert fitted.input_shape == (0, width)
    batch = fitted.encode_inputs([e.inputs for e in examples])
    assert batch["inputs"].dtype == torch.float32
    assert batch["lengths"].tolist() == [1 + (16000 * (3 + n) // 10 - 400) // 160 for n in range(5)]
    assert batch["inputs"][0, int(batch["lengths"][0]) :].abs().sum() == 0
    frames = torch.cat(
        [row[:length] for row, length in zip(batch["inputs"], batch["lengths"], strict=True)]
    )
    torch.testing.assert_close(frames.mean(0), torch.zeros(width), atol=1e-4, rtol=0)
    torch.testing.assert_close(frames.std(0, unbiased=False), torch.ones(width), atol=1e-3, rtol=0)
    fitted.save(tmp_path)
    again: Any = load_processor(tmp_path)
    for number, example in enumerate(examples):
        alone = again.encode_inputs([example.inputs])["inputs"][0]
        assert torch.equal(alone, batch["inputs"][number, : len(alone)])


@pytest.mark.parametrize(
    "settings",
    [
        {"features": "log_mel"},
        {"sample_rate": 8000},
        {"window_ms": 32.0},
        {"hop_ms": 8.0},
        {"mel_bands": 30},
        {"lowest_hz": 100.0},
        {"highest_hz": 3000.0},
        {"preemphasis": 0.0},
        {"coefficients": 12},
        {"deltas": 1},
        {"normalise": "none"},
        {"normalise": "each_sound"},
        {"max_seconds": 0.1},
    ],
    ids=str,
)
def test_every_setting_has_an_effect(settings: dict[str, Any]) -> None:
    examples = [Example(str(n), (tone(200 + 100 * n, seconds=0.3), 8000)) for n in range(3)]
    plain, changed = (
        config.fit(lambda: iter(examples)).encode_inputs([e.inputs for e in examples])["inputs"]
        for config in (AudioConfig(), AudioConfig(**settings))
    )
    assert plain.shape != changed.shape or not torch.equal(plain, changed)


def test_a_sound_shorter_than_a_frame_and_silence_have_features() -> None:
    config = AudioConfig(sample_rate=8000, normalise="none")
    assert config.frames((np.ones(3), 8000)).shape == (1, 13)
    assert np.isfinite(config.frames((np.zeros(8000), 8000))).all()
