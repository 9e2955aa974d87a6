"""Speech and its transcripts: sounds as features over time, transcripts as tokens.

Shape legend: N sounds, T frames, F features, S samples.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from groundup.contracts.processors import InputProcessor, ProcessorConfig, TextProcessor
from groundup.core import registry
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.core.values import Batch, CutInputs, Example
from groundup.generation.ngrams import NGramModel
from groundup.media.audio import SoundsSeen, header_of, read_sound, resampled
from groundup.media.resampling import resample
from groundup.processors import spectrogram
from groundup.processors.saved_files import read_json, saved_settings, write_json
from groundup.processors.sequences import check_frames, mean_and_spread, pad
from groundup.processors.sound_frames import OVER_ALL, SoundFrames
from groundup.processors.tokenizer_section import read_tokenizer_section
from groundup.processors.transcript_ngrams import load_ngrams, save_ngrams

__all__ = ["SpeechConfig", "SpeechProcessor"]

_log = logging.getLogger("groundup")

_SOUNDS = ("mfcc", "log_mel", "whisper")
_NAMED = 8  # characters that are named in a message


@processor("speech")
class SpeechConfig(SoundFrames):
    """Speech and its transcripts: what a recogniser reads of a sound, and the tokens it writes."""

    features: Literal["mfcc", "log_mel", "whisper", "given"] = setting(
        "log_mel",
        "Logarithms of mel band energies, cepstral coefficients, what Whisper reads, or given: the"
        " data are features (frames, features) already",
    )
    sample_rate: int = setting(
        16000,
        "Samples a second that every sound is brought to",
        ge=1000,
        le=192000,
        applies_when={"features": _SOUNDS},
    )
    mel_bands: int = setting(80, "Mel bands", ge=2, le=512, applies_when={"features": _SOUNDS})
    normalise: Literal["mean_variance", "each_sound", "each_mean", "none"] = setting(
        "mean_variance",
        "Each feature has mean 0 and variance 1: mean_variance over all training frames, each_sound"
        " over each sound's; each_mean: the mean of each sound's, the variance over all",
        applies_when={"features": ("mfcc", "log_mel", "given")},
    )
    pad_seconds: float | None = setting(
        30.0,
        "Sounds are filled up with silence to this length, as Whisper reads them, and longer ones"
        " cut; null: neither",
        gt=0,
        le=3600,
        applies_when={"features": ("whisper",)},
    )
    frame_seconds: float = setting(
        0.01,
        "From a frame of given features to the next, seconds",
        gt=0,
        le=10,
        applies_when={"features": ("given",)},
    )
    tokenizer: dict[str, Any] = setting(
        {"name": "characters"},
        "The processor of transcripts, as a section processor has it: characters, bpe,"
        " tokenizer_json",
    )
    transcript_prefix: str = setting(
        "", "Put before every transcript, such as the blank that Whisper's begin with"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> SpeechConfig:
        if self.features == "whisper" and self.sample_rate != spectrogram.WHISPER_RATE:
            raise ValueError(
                f"sample_rate is {self.sample_rate}, but Whisper reads 16000 samples a second."
                " Remove it"
            )
        # Now, and not when all sounds have been read.
        self.transcripts()
        return self

    def transcripts(self) -> ProcessorConfig:
        """Return the settings of the tokenizer.

        Raises:
            RecipeError: If it is not one, or one of its settings is wrong.
        """
        return read_tokenizer_section(self.tokenizer, "recipe.processor.tokenizer")

    @property
    def as_whisper(self) -> bool:
        """Whether features are Whisper's."""
        return self.features == "whisper"

    def fit(self, texts: Callable[[], Iterator[Example]]) -> SpeechProcessor:
        """Return the processor with the means and scales of the training sounds, and a tokenizer of
        their transcripts.

        Raises:
            DataError: If there are none, or one cannot be read.
        """

        def transcripts() -> Iterator[str]:
            return (str(example.target) for example in texts())

        tokenizer = self.transcripts().fit(transcripts)
        assert isinstance(tokenizer, TextProcessor)
        counts: Counter[str] = Counter()
        for text in transcripts():
            counts.update(text)
        # What a tokenizer spells in bytes can be written, but was never learned.
        known = "".join(sorted(counts))
        seen = SoundsSeen(self.sample_rate)
        if self.features == "given":
            return self._fit_to_features(texts, tokenizer, known)
        # Nothing is taken off, and divided by 1, until the sounds have been read.
        mean = [0.0] * self.width
        scale = [1.0] * self.width
        plain = SpeechProcessor(self, mean, scale, tokenizer, known)
        if self.normalise in OVER_ALL and not self.as_whisper:
            frames = (plain.frames_of_sound(each, seen) for each in texts())
            mean, scale = mean_and_spread(frames, "recipe.processor")
        else:
            # No statistics, so the headers tell all that is to be said.
            for example in texts():
                seen.add_header(header_of(example.inputs, example.origin or example.name))
        return SpeechProcessor(self, mean, scale, tokenizer, known, seen.notes())

    def _fit_to_features(
        self, texts: Callable[[], Iterator[Example]], tokenizer: TextProcessor, known: str
    ) -> SpeechProcessor:
        # The others are checked against the first one's number of features.
        first = next(texts(), None)
        values = None if first is None else np.asarray(first.inputs)
        width = values.shape[1] if values is not None and values.ndim == 2 else 0
        read = (check_frames(each.inputs, width, each.origin or each.name) for each in texts())
        mean, scale = mean_and_spread(map(self.normalised, read), "recipe.processor")
        if self.normalise not in OVER_ALL:
            mean = [0.0] * width
            scale = [1.0] * width
        return SpeechProcessor(self, mean, scale, tokenizer, known)

    @classmethod
    def load(cls, folder: Path) -> SpeechProcessor:
        """Return the processor that was saved to ``folder``.

        Raises:
            DataError: If one of its files is missing or damaged.
        """
        inner = read_json(folder / "tokenizer" / "processor.json")
        with saved_settings(folder) as saved:
            reader = registry.lookup("processor", str(inner["name"])).load(folder / "tokenizer")
            mean = [float(value) for value in saved["mean"]]
            scale = [float(value) for value in saved["scale"]]
            config = cls(**saved["settings"])
            # One number alone would be taken for every feature without a word.
            expected = len(mean) if config.features == "given" else config.width
            if not len(mean) == len(scale) == expected:
                raise ValueError(f"{len(mean)} means of {expected} features")
            known = str(saved["characters"])
            found = SpeechProcessor(config, mean, scale, reader, known, saved.get("notes", ()))
            found.ngrams = load_ngrams(folder)
            return found


class SpeechProcessor(InputProcessor):
    """Turns sounds into features, padded to the longest, and transcripts into tokens.

    Args:
        config: How features are computed.
        mean: (F,) what is taken off each.
        scale: (F,) what each is then divided by.
        tokenizer: What reads the transcripts.
        characters: All that are in the training transcripts; empty: nothing is known of them.
        notes: What there is to say of the training sounds.
    """

    cut: CutInputs

    def __init__(
        self,
        config: SpeechConfig,
        mean: Sequence[float],
        scale: Sequence[float],
        tokenizer: TextProcessor,
        characters: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.mean = tuple(mean)
        self.scale = tuple(scale)
        self.tokenizer = tokenizer
        self.characters = characters
        self.notes = tuple(notes)
        self.cut = CutInputs()
        # What a task learned of the training transcripts, where it did.
        self.ngrams: NGramModel | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(0, F): the number of frames varies."""
        return (0, self.width)

    @property
    def width(self) -> int:
        """Features of a frame, F."""
        return len(self.mean)

    @property
    def sample_rate(self) -> int:
        """Samples a second that every sound is brought to."""
        return self.config.sample_rate

    @property
    def frame_seconds(self) -> float:
        """From the start of a frame to that of the next."""
        if self.config.as_whisper:
            return spectrogram.WHISPER_HOP / spectrogram.WHISPER_RATE
        if self.config.features == "given":
            return self.config.frame_seconds
        return self.config.hop / self.config.sample_rate

    def to_huggingface(self) -> dict[str, Any] | None:
        """Return preprocessor_config.json's contents; None where features are not Whisper's."""
        if not self.config.as_whisper:
            return None
        # That library fills up to whole seconds alone.
        seconds = max(1, round(self.config.pad_seconds or 30))
        if seconds != self.config.pad_seconds:
            _log.warning(
                "preprocessor_config.json: chunk_length is %d, but pad_seconds is %s: transformers"
                " fills sounds up to whole seconds, and its frames are others than these",
                seconds,
                "null" if self.config.pad_seconds is None else f"{self.config.pad_seconds:g}",
            )
        return spectrogram.whisper_settings(self.config.mel_bands, seconds)

    @property
    def vocabulary_size(self) -> int:
        """How many tokens transcripts are written with."""
        return self.tokenizer.vocabulary_size

    # ------------------------------------------------------------------------------------- sounds
    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``inputs`` (N, T, F) float32 and ``lengths`` (N,) of sounds: paths, bytes, or
        (samples, rate); or of given features (T, F).

        Whisper's are filled up with silence to ``pad_seconds``; lengths are those of the sounds.

        Raises:
            DataError: If a sound cannot be read; the message names the file, or the sound's number.
        """
        if self.config.features == "given":
            frames = (
                check_frames(each, self.width, f"sequence {number}")
                for number, each in enumerate(inputs)
            )
            return pad([self._scaled(self.config.normalised(each)) for each in frames], self.width)
        sounds = [self.read_samples(each, f"sound {number}") for number, each in enumerate(inputs)]
        return self.encode_samples(sounds)

    def encode_samples(self, sounds: Sequence[NDArray[Any]]) -> Batch:
        """Return ``inputs`` and ``lengths``, as ``encode_inputs`` does, of samples (S,) each at the
        processor's rate."""
        if not self.config.as_whisper:
            return pad([self._frames(samples) for samples in sounds], self.width)
        batch = pad(
            [self._frames(spectrogram.fill_up(samples, self._longest)) for samples in sounds],
            self.width,
        )
        longest = batch["inputs"].shape[1]
        # The frames behind a sound are of silence, and the model is told where it ends.
        own = [-(-len(samples) // spectrogram.WHISPER_HOP) for samples in sounds]
        lengths = batch["lengths"].new_tensor([min(each, longest) for each in own])
        return batch | {"lengths": lengths}

    def read_samples(
        self, source: Any, name: str = "", seen: SoundsSeen | None = None
    ) -> NDArray[np.float32]:
        """Return the samples (S,) of what ``read_sound`` reads, at the processor's rate.

        Args:
            source: A path, the bytes of a file or where they are, or (samples, rate).
            name: What to call it in messages, where it is no file.
            seen: Told what there is to say of the sound.

        Raises:
            DataError: If it cannot be read, is empty, or holds what is no finite number.
        """
        sound = read_sound(source, name)
        if seen is not None:
            seen.add(sound)
        if sound.rate != self.sample_rate:
            change = resampled(sound.rate, self.sample_rate)
            # Where training sounds were of this rate, it has been said of them.
            if not any(change in note for note in self.notes):
                self.cut.count(f"sounds are {change}", 1, name or str(source))
        kept = sound.samples
        longest = self._longest
        if longest is not None:
            limit = f"pad_seconds {longest:g}"
            self.cut.add("sounds", "seconds", limit, [sound.seconds], longest)
            # Cut first: what is not kept need not be brought to another rate.
            kept = kept[: max(1, round(longest * sound.rate))]
        return resample(kept, sound.rate, self.sample_rate).astype(np.float32)

    def frames_of_samples(self, samples: NDArray[Any], rate: int) -> NDArray[np.float32]:
        """Return the features (T, F) of samples (S,) from -1 to 1, such as a part of a long
        recording."""
        return self._frames(resample(samples, rate, self.sample_rate))

    def frames_of_sound(
        self, example: Example, seen: SoundsSeen | None = None
    ) -> NDArray[np.float32]:
        """Return the features (T, F) of an example's sound, which is noted in ``seen``."""
        return self._frames(self.read_samples(example.inputs, example.origin or example.name, seen))

    @property
    def _longest(self) -> float | None:
        return self.config.pad_seconds if self.config.as_whisper else None

    def _frames(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        if self.config.as_whisper:
            return spectrogram.whisper_frames(samples, self.config.mel_bands)
        return self._scaled(self.config.frames_of(samples))

    def _scaled(self, frames: NDArray[np.float64]) -> NDArray[np.float32]:
        # In float64 to the end, as the statistics were computed.
        scaled: NDArray[np.float32] = ((frames - self._mean) / self._scale).astype(np.float32)
        return scaled

    @cached_property
    def _mean(self) -> NDArray[np.float64]:
        return np.asarray(self.mean)

    @cached_property
    def _scale(self) -> NDArray[np.float64]:
        return np.asarray(self.scale)

    # -------------------------------------------------------------------------------- transcripts
    def encode_transcripts(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the tokens of each transcript; characters that no training transcript holds are
        counted, and named."""
        if self.characters:
            other: Counter[str] = Counter()
            for text in texts:
                other.update(character for character in text if character not in self._known)
            # One kind of message, whichever they are; the first batch's are its examples.
            shown = ", ".join(repr(each) for each, _ in other.most_common(_NAMED))
            what = "characters of transcripts are in no training transcript"
            self.cut.count(what, other.total(), shown)
        prefix = self.config.transcript_prefix
        return self.tokenizer.encode_batch([prefix + text for text in texts])

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.characters)

    def save(self, folder: Path) -> None:
        """Write processor.json, and the tokenizer's files below ``tokenizer/``."""
        (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(folder / "tokenizer")
        saved = {
            "settings": self.config.model_dump(mode="json"),
            "mean": self.mean,
            "scale": self.scale,
            "characters": self.characters,
            "notes": self.notes,
        }
        write_json(folder / "processor.json", {"name": "speech", **saved})
        save_ngrams(self.ngrams, folder)
