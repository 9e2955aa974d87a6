"""Whisper's features are those of transformers' own extractor, to the last bit of float32 or nearly
so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from later import Library

from groundup.core.values import Example
from groundup.processors.spectrogram import slaney_filters
from groundup.processors.speech import SpeechConfig

pytestmark = pytest.mark.xdist_group("transformers")  # imported once, by one worker
SPOKEN = [Example("a", (np.ones(800, np.float32) / 9, 16000), "a")]
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


@pytest.mark.parametrize("seconds", [10.0, 1.0])
def test_a_short_window_is_the_librarys_too(seconds: float, tmp_path: Path) -> None:
    own = SpeechConfig(features="whisper", pad_seconds=seconds).fit(lambda: iter(SPOKEN))
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(own.to_huggingface()))
    extract = whisper.WhisperFeatureExtractor.from_pretrained(tmp_path)
    assert extract.chunk_length == seconds
    sound = np.random.default_rng(0).normal(size=8000).astype(np.float32) / 10
    theirs = extract(sound, sampling_rate=16000, return_tensors="np").input_features[0].T
    found = own.encode_inputs([(sound, 16000)])["inputs"][0].numpy()
    assert found.shape == theirs.shape == (100 * seconds, 80)
    np.testing.assert_allclose(found, theirs, atol=1e-6)


def test_parts_of_seconds_are_not(caplog: pytest.LogCaptureFixture) -> None:
    own = SpeechConfig(features="whisper", pad_seconds=2.5).fit(lambda: iter(SPOKEN))
    written = own.to_huggingface()
    assert written is not None
    assert written["chunk_length"] == 2
    assert "chunk_length is 2, but pad_seconds is 2.5: transformers fills" in caplog.text
