"""Whisper's features are those of transformers' own extractor, to the last bit of float32 or nearly
so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from later import Library

from groundup.core.values import Example
from groundup.processors.spectrogram import slaney_filters
from groundup.processors.speech import SpeechConfig

pytestmark = pytest.mark.xdist_group("transformers")  # imported once, by one worker
audio: Any = Library("transformers.audio_utils")
whisper: Any = Library("transformers.models.whisper.feature_extraction_whisper")


@pytest.mark.parametrize(
    ("bands", "size", "rate"), [(80, 400, 16000), (128, 400, 16000), (40, 512, 8000)]
)
def test_slaney_filters(bands: int, size: int, rate: int) -> None:
    theirs = audio.mel_filter_bank(
        size // 2 + 1, bands, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney"
    )
    np.testing.assert_allclose(slaney_filters(bands, size, rate), theirs, atol=1e-12)


@pytest.mark.parametrize("bands", [80, 128])
def test_features_and_lengths(bands: int) -> None:
    random = np.random.default_rng(0)
    sizes = (1, 399, 8000, 16001, 32 * 16000)
    sounds = [(0.3 * random.standard_normal(size)).astype(np.float32) for size in sizes]
    # Loud and quiet parts: what is 80 dB below the loudest is all the same.
    sounds[3][4000:] *= 1e-5
    examples = [Example(str(n), (each, 16000), "a") for n, each in enumerate(sounds)]
    own = SpeechConfig(features="whisper", mel_bands=bands).fit(lambda: iter(examples))
    batch = own.encode_inputs([example.inputs for example in examples])
    extractor = whisper.WhisperFeatureExtractor(feature_size=bands)
    theirs = extractor(sounds, sampling_rate=16000, return_tensors="np", return_attention_mask=True)
    expected = theirs["input_features"].transpose(0, 2, 1)
    np.testing.assert_allclose(batch["inputs"].numpy(), expected, atol=1e-5, rtol=0)
    assert batch["lengths"].tolist() == theirs["attention_mask"].sum(1).tolist()
