"""Speech as features and its transcripts as tokens: normalised, saved, resampled and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.processors.audio import AudioConfig
from groundup.processors.speech import SpeechConfig, SpeechProcessor
from groundup.runs.processor import load_processor

RNG = np.random.default_rng(0)
WORDS = ["press one", "press two", "hold the line", "goodbye"]


def spoken(rate: int = 16000) -> list[Example]:
    return [
        Example(str(n), (0.1 * RNG.standard_normal(rate * (3 + n) // 10), rate), text, f"file {n}")
        for n, text in enumerate(WORDS)
    ]


def fitted(examples: list[Example], **settings: Any) -> SpeechProcessor:
    return SpeechConfig(**settings).fit(lambda: iter(examples))


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({}, 80),
        ({"mel_bands": 40, "deltas": 2}, 120),
        ({"features": "mfcc", "normalise": "each_sound"}, 13),
        ({"features": "whisper"}, 80),
        ({"features": "whisper", "pad_seconds": None}, 80),
        ({"tokenizer": {"name": "bpe", "vocab_size": 300}}, 80),
    ],
    ids=str,
)
def test_it_is_saved_and_gives_the_same_alone(
    settings: dict[str, Any], width: int, tmp_path: Path
) -> None:
    examples = spoken()
    sounds = [example.inputs for example in examples]
    made = fitted(examples, **settings)
    assert made.input_shape == (0, width)
    batch = made.encode_inputs(sounds)
    assert batch["inputs"].dtype == torch.float32
    made.save(tmp_path)
    again: Any = load_processor(tmp_path)
    assert again.frame_seconds == 0.01
    assert again.vocabulary_size == made.tokenizer.vocabulary_size
    for number, sound in enumerate(sounds):
        alone = again.encode_inputs([sound])["inputs"][0]
        assert torch.equal(alone, batch["inputs"][number, : len(alone)])
    pairs = zip(made.encode_transcripts(WORDS), again.encode_transcripts(WORDS), strict=True)
    for own, others in pairs:
        assert own.tolist() == others.tolist()
        assert again.tokenizer.decode(own.tolist()) in WORDS


def test_features_of_sounds_are_those_of_the_processor_audio() -> None:
    examples = spoken(8000)
    settings: dict[str, Any] = {"features": "log_mel", "mel_bands": 40}
    own = fitted(examples, **settings).encode_inputs([e.inputs for e in examples])
    audio = AudioConfig(**settings).fit(lambda: iter(examples))
    other = audio.encode_inputs([e.inputs for e in examples])
    torch.testing.assert_close(own["inputs"], other["inputs"], atol=1e-4, rtol=0)
    assert own["lengths"].tolist() == other["lengths"].tolist()


def test_another_rate_is_said() -> None:
    for settings in ({}, {"features": "whisper"}):
        made = fitted(spoken(8000), **settings)
        assert made.notes == ("of 4 sounds 4 brought from 8,000 Hz to 16,000",)
        # It is known by now, and not said again of each.
        made.encode_inputs([example.inputs for example in spoken(8000)])
        assert made.cut.filled() == []
        made.encode_inputs([example.inputs for example in spoken(4000)])
        assert made.cut.filled() == ["4 sounds are brought from 4,000 Hz to 16,000 (sound 0)"]
    assert fitted(spoken(16000)).notes == ()


def test_whisper_fills_up_with_silence_and_cuts_what_is_longer() -> None:
    made = fitted(spoken(), features="whisper", pad_seconds=0.5)
    batch = made.encode_inputs([example.inputs for example in spoken()])
    assert batch["inputs"].shape == (4, 50, 80)
    assert batch["lengths"].tolist() == [30, 40, 50, 50]
    (note,) = made.cut.notes()
    assert "1 of 4 sounds are longer than pad_seconds 0.5 and cut" in note
    # A sound of one sample has a frame, and is no error.
    short = fitted(spoken(), features="whisper", pad_seconds=None)
    assert short.encode_inputs([(np.ones(1), 16000)])["inputs"].shape == (1, 1, 80)


def test_given_features_have_the_width_of_the_data(tmp_path: Path) -> None:
    examples = [
        Example(str(n), RNG.standard_normal((5 + n, 3)) * [1, 10, 100], text)
        for n, text in enumerate(WORDS)
    ]
    made = fitted(examples, features="given", frame_seconds=0.02)
    batch = made.encode_inputs([example.inputs for example in examples])
    assert batch["inputs"].shape == (4, 8, 3)
    assert (made.width, made.frame_seconds) == (3, 0.02)
    made.save(tmp_path)
    again: Any = load_processor(tmp_path)
    assert torch.equal(again.encode_inputs([e.inputs for e in examples])["inputs"], batch["inputs"])
    each = fitted(examples, features="given", normalise="each_sound")
    row = each.encode_inputs([examples[0].inputs])["inputs"][0]
    torch.testing.assert_close(row.std(0, unbiased=False), torch.ones(3))
    with pytest.raises(DataError, match=r"sequence 1: has shape \(4, 2\); allowed: \(frames, 3\)"):
        made.encode_inputs([examples[0].inputs, np.ones((4, 2))])


def test_a_part_of_a_recording_has_the_features_that_it_has_alone() -> None:
    made = fitted(spoken())
    samples = RNG.standard_normal(8000)
    window = made.frames_of_samples(samples[1600:6400], 8000)
    alone = made.encode_inputs([(samples[1600:6400], 8000)])["inputs"][0].numpy()
    np.testing.assert_allclose(window, alone, atol=1e-4)


def test_characters_of_no_training_transcript_are_counted_and_named() -> None:
    made = fitted(spoken())
    made.encode_transcripts(["press ß", "ßix"])
    (line,) = made.cut.filled()
    assert line.startswith("3 characters of transcripts are in no training transcript ('ß', ")


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        ((np.array([0.1, np.nan]), 16000), "sound 0: sample 1 is no finite number"),
        ((np.zeros(0), 16000), "sound 0: the sound is empty: it holds no samples"),
        (b"", "sound 0: cannot be read as sound"),
    ],
)
def test_sounds_that_cannot_be_read(sound: Any, message: str) -> None:
    made = fitted(spoken())
    with pytest.raises(DataError, match=message):
        made.encode_inputs([sound])
    examples = [Example("a", sound, "text", "sound 0")]
    with pytest.raises(DataError, match=message):
        fitted(examples)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer": {"name": "image"}}, r"tokenizer.name: is image, which reads no texts"),
        ({"tokenizer": {"name": "bpf"}}, r"tokenizer.name: there is no processor 'bpf'"),
        ({"tokenizer": {}}, r"tokenizer.name: is required and missing"),
        ({"tokenizer": {"name": "bpe", "size": 3}}, r"processor.tokenizer.size: unknown key"),
        ({"features": "whisper", "sample_rate": 8000}, "Whisper reads 16000 samples a second"),
        ({"features": "whisper", "hop_ms": 5.0}, "hop_ms has no effect with features"),
        ({"features": "whisper", "normalise": "none"}, "normalise has no effect with features"),
        ({"features": "given", "mel_bands": 40}, "mel_bands has no effect with features"),
        ({"features": "given", "sample_rate": 8000}, "sample_rate has no effect with features"),
        ({"pad_seconds": 3.0}, "pad_seconds has no effect with features"),
        ({"frame_seconds": 0.02}, "frame_seconds has no effect with features"),
        ({"mel_bands": 128}, "mel band 4 of 128 is narrower than frames of 25.0 ms tell apart"),
    ],
    ids=str,
)
def test_settings_that_are_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(SpeechConfig, settings, "recipe.processor")


def test_a_damaged_folder(tmp_path: Path) -> None:
    fitted(spoken()).save(tmp_path)
    path = tmp_path / "processor.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"mean": [', '"mean": [0, '), "utf-8")
    with pytest.raises(DataError, match=r"processor.json: is damaged: ValueError 81 means of 80"):
        load_processor(tmp_path)
    (tmp_path / "tokenizer" / "processor.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer.processor.json: no such file"):
        load_processor(tmp_path)


@pytest.mark.parametrize("given", [False, True])
def test_the_mean_of_each_sound_is_taken_off(given: bool) -> None:
    draws = np.random.default_rng(0)
    sounds: list[Any] = [
        (draws.normal(size=8000) * loudness, 8000) for loudness in (0.01, 0.1, 0.4)
    ]
    settings: dict[str, Any] = {"sample_rate": 8000, "mel_bands": 10}
    if given:
        sounds = [draws.normal(size=(40, 6)) + shift for shift in (0.0, 5.0, -9.0)]
        settings = {"features": "given"}
    examples = [Example(str(n), sound, "a") for n, sound in enumerate(sounds)]
    processor = SpeechConfig(normalise="each_mean", **settings).fit(lambda: iter(examples))
    batch = processor.encode_inputs(sounds)
    rows = [r[:n] for r, n in zip(batch["inputs"], batch["lengths"].tolist(), strict=True)]
    for row in rows:
        np.testing.assert_allclose(row.mean(0), 0.0, atol=1e-5)
    # The spread is that of all together.
    np.testing.assert_allclose(np.concatenate(rows).std(0), 1.0, atol=1e-4)
