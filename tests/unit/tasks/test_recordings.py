"""Recordings of any length: what windows give is what the whole gives, silence stays silent, and a
file is never wholly in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from groundup.core.errors import DataError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.processors.speech import SpeechConfig, SpeechProcessor
from groundup.tasks.transcribe.recordings import Recording, loud_units, pauses, windows
from groundup.tasks.transcribe.task import Transcribe

RATE = 8000
TONES = {letter: 400.0 * (number + 1) for number, letter in enumerate("abcd")}


def tone(letter: str, seconds: float = 0.2) -> NDArray[Any]:
    places = np.arange(round(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * TONES[letter] * places)).astype(np.float32)


def spoken(text: str) -> NDArray[Any]:
    """Return a text as tones, a letter in 0.2 seconds with as much silence behind it; a blank is
    a longer pause."""
    pause = np.zeros(round(0.2 * RATE), np.float32)
    parts = [np.concatenate((tone(c), pause)) if c in TONES else np.tile(pause, 2) for c in text]
    return np.concatenate([pause, *parts])


def made() -> SpeechProcessor:
    examples = [Example("one", (spoken("abcd dcba"), RATE), "abcd dcba")]
    settings: dict[str, Any] = {"sample_rate": RATE, "mel_bands": 20, "normalise": "none"}
    return SpeechConfig(**settings).fit(lambda: iter(examples))


class Hears(torch.nn.Linear):
    """Knows the tones: where the loudest band of four frames is that of a letter, it says so."""

    reach = 4

    def __init__(self, processor: SpeechProcessor) -> None:
        super().__init__(1, 1)
        tokenizer = processor.tokenizer
        self.blank_id = tokenizer.vocabulary_size
        self.calls = 0
        self.bands: dict[int, int] = {}
        for letter in TONES:
            loudest = processor.frames_of_samples(tone(letter), RATE).mean(0).argmax()
            self.bands[int(loudest)] = int(tokenizer.encode_batch([letter])[0][0])
        self.space = int(tokenizer.encode_batch([" "])[0][0])
        assert len(self.bands) == len(TONES)

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        return (lengths + 3) // 4

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        self.calls += 1
        found = torch.zeros(len(inputs), -(-inputs.shape[1] // 4), self.blank_id + 1)
        found[..., -1] = 5.0
        for row, frames in enumerate(inputs):
            for unit, part in enumerate(frames.split(4)):
                # The loudest frame of the four: at a tone's beginning and end one of them is.
                middle = part[part.max(1).values.argmax()]
                if float(middle.max()) > -1.0:
                    found[row, unit, self.bands.get(int(middle.argmax()), self.blank_id)] = 20.0
        return found


def task(**settings: Any) -> Transcribe:
    return validate(Transcribe, settings, "recipe.task")


def text_of(length: int) -> str:
    letters = np.random.default_rng(3).choice(list("abcd"), length)
    return "".join(letters)


@pytest.mark.slow
def test_windows_give_what_the_whole_gives() -> None:
    processor = made()
    model = Hears(processor)
    said = text_of(150)
    sound = (spoken(said), RATE)
    whole = task(window_seconds=120.0).predict(model, sound, processor)
    assert whole["text"] == said
    for window, overlap in ((10.0, 4.0), (7.3, 1.1), (2.0, 1.0), (5.0, 0.5)):
        chosen = task(window_seconds=window, overlap_seconds=overlap)
        # Neither a letter that is lost at a seam, nor one twice; and all at the same times.
        assert chosen.predict(model, sound, processor) == whole


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_files_are_read_by_parts(suffix: str, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    processor = made()
    said = text_of(80)
    path = tmp_path / f"long.{suffix}"
    soundfile.write(path, spoken(said), RATE)
    chosen = task(window_seconds=6.0, overlap_seconds=2.0)
    found = chosen.predict(Hears(processor), str(path), processor)
    assert found["text"] == said
    assert chosen.predict(Hears(processor), path.read_bytes(), processor)["text"] == said


def test_another_rate_is_brought_to_the_models_own(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    processor = made()
    said = text_of(40)
    twice = np.repeat(spoken(said), 2)
    path = tmp_path / "long.wav"
    soundfile.write(path, np.stack((twice, twice), 1), 2 * RATE)
    chosen = task(window_seconds=5.0, overlap_seconds=2.0)
    assert chosen.predict(Hears(processor), str(path), processor)["text"] == said
    assert "brought from 16,000 Hz to 8,000" in processor.cut.filled()[0]


def test_many_recordings_keep_their_order() -> None:
    processor = made()
    texts = [text_of(length) for length in (40, 3, 1, 25, 9)]
    chosen = task(window_seconds=4.0, overlap_seconds=1.0)
    found = chosen.predict(Hears(processor), [(spoken(t), RATE) for t in texts], processor)
    assert [row["text"] for row in found] == texts


class Babbles(Hears):
    """Says something whatever it hears."""

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        found = super().forward(inputs, lengths)
        quiet = found.argmax(-1) == self.blank_id
        found[..., next(iter(self.bands.values()))][quiet] = 9.0
        return found


def test_silence_stays_silent() -> None:
    processor = made()
    model = Babbles(processor)
    silence = np.zeros(12 * RATE, np.float32)
    assert task().predict(model, (silence, RATE), processor) == {"text": "", "words": []}
    # Quieter than the last of 16 bits is silence as well.
    hiss = silence + np.float32(1e-5)
    assert task().predict(model, (hiss, RATE), processor)["text"] == ""
    # A model is asked about it only where the settings say so.
    asked = task(silence_db=None).predict(model, (silence, RATE), processor)
    assert asked["text"]
    # In a recording, only what is far from anything that can be heard.
    both = np.concatenate((silence, spoken("b"), silence))
    chosen = task(window_seconds=8.0, overlap_seconds=2.0)
    words = chosen.predict(model, (both, RATE), processor)["words"]
    assert words
    assert all(word["begin_s"] >= 11.5 and word["end_s"] <= 13.5 for word in words)


def test_memory_is_bounded_whatever_the_length(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    processor = made()
    path = tmp_path / "hour.wav"
    part = spoken(text_of(20))
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(120):
            file.write(part)
    seconds = 120 * len(part) / RATE
    assert seconds > 900
    recording = Recording(str(path), processor, "")
    tracemalloc.start()
    total = 0.0
    for window in windows(recording, 0.04, 30.0, 4.0):
        total += len(window.content) / RATE
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > seconds
    # A few windows, and not a quarter of an hour: of that, samples in float32 take five times this.
    assert peak < 4 * seconds * RATE / 5


@pytest.mark.slow
def test_several_texts_of_a_long_recording() -> None:
    processor = made()
    sound = (np.tile(spoken("ab"), 130), RATE)
    # Over segments, here each of a minute: of each the best texts, and of these combinations.
    found = task(beams=3).predict(Hears(processor), sound, processor, n_best=3)
    assert found["text"] == found["alternatives"][0]["text"] == "ab" * 130
    scores = [each["score"] for each in found["alternatives"]]
    assert scores == sorted(scores, reverse=True)
    assert len({each["text"] for each in found["alternatives"]}) == len(scores) == 3


def test_pauses_are_where_it_is_quiet() -> None:
    processor = made()
    recording = Recording((spoken("abcd abcd abcd abcd abcd"), RATE), processor, "")
    parts = list(pauses(recording, 4.0, 2.0))
    assert len(parts) > 2
    joined = np.concatenate([part.content for part in parts])
    np.testing.assert_array_equal(joined, recording.read(0.0, recording.seconds))
    for part in parts[:-1]:
        assert not part.content[-RATE // 20 :].any()
        assert len(part.content) <= 4 * RATE
    features = Recording(np.zeros((1000, 20), np.float32), processor, "these")
    with pytest.raises(DataError, match="these: has 10 seconds of features, but a window has 4"):
        list(pauses(features, 4.0, 2.0))


def test_loud_units_have_quiet_ones_around_them() -> None:
    sound = np.zeros(10 * RATE, np.float32)
    sound[5 * RATE : 5 * RATE + 400] = 0.5
    loud = np.flatnonzero(loud_units(sound, RATE, 0.04, -60.0, 250)) * 0.04
    assert loud.min() == pytest.approx(4.5, abs=0.06)
    assert loud.max() == pytest.approx(5.55, abs=0.06)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    processor = made()
    model = Hears(processor)
    broken = np.full(RATE, np.nan, np.float32)
    with pytest.raises(DataError, match="sound 1: sample 0 is no finite number"):
        task().predict(model, [(spoken("a"), RATE), (broken, RATE)], processor)
    with pytest.raises(DataError, match="no such file"):
        task().predict(model, str(tmp_path / "none.wav"), processor)
    with pytest.raises(DataError, match="the sound is empty"):
        task().predict(model, (np.zeros(0, np.float32), RATE), processor)
