"""Telephone numbers as they sound when they are dialled: two tones a key, in noise.

Shape legend: S samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from groundup.contracts.data import DataContext, DataSource, Stream, Unlabelled
from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.reading.unlabelled import read_files
from groundup.data.splitting.held_out import lengths_of
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.data.stream.row_order import similar_lengths_setting
from groundup.media.audio import SOUND_KINDS

__all__ = ["KEYS", "DialledNumbers"]

KEYS = "123A456B789C*0#D"
"""The keys, row by row of the keypad."""

_ROWS = (697.0, 770.0, 852.0, 941.0)  # hertz
_COLUMNS = (1209.0, 1336.0, 1477.0, 1633.0)
_DIALLED = "0123456789*#"  # A to D are on no telephone of today
_RAMP = 0.003  # seconds in which a tone swells and fades
_FORMAT = 1  # raise it when other sounds are made of the same settings
_Range = tuple[float, float]


@data("dialled_numbers")
class DialledNumbers(DataSource):
    """Sounds of dialled numbers (DTMF) with their keys, made from the seed: nothing is downloaded.

    Each number has its own speed, level, noise and twist, which is how much louder the higher of
    the two tones is. No number that is held out is trained on.

    Source:
        ITU-T Recommendation Q.23, "Technical features of push-button telephone sets": the tones;
        their tolerance of 1.8% is used whole.
    """

    numbers: int = setting(800, "numbers to learn from", ge=1, le=200_000)
    held_out: int = setting(100, "numbers held out for validation", ge=0, le=20_000)
    tested: int = setting(0, "numbers that training never looks at", ge=0, le=20_000)
    lengths: tuple[int, int] = setting((3, 10), "keys of a number: the fewest and the most")
    sample_rate: int = setting(8000, "samples a second", ge=4000, le=48000)
    tone_seconds: _Range = setting(
        (0.05, 0.15), "length of a tone: of the fastest number, and of the slowest"
    )
    gap_seconds: _Range = setting((0.03, 0.2), "silence between two tones, likewise")
    snr_db: _Range = setting(
        (0.0, 20.0), "decibels by which tones are louder than the white noise: least and most"
    )
    level_db: _Range = setting((-30.0, -6.0), "loudness of the tones, decibels of full scale")
    twist_db: _Range = setting(
        (-6.0, 4.0), "decibels by which the higher tone is louder than the lower"
    )
    similar_lengths: bool = similar_lengths_setting("sounds", default=True)
    seed: int = setting(0, "another seed makes other numbers", ge=0)

    @model_validator(mode="after")
    def _ranges_have_an_order(self) -> DialledNumbers:
        ranges = ("lengths", "tone_seconds", "gap_seconds", "snr_db", "level_db", "twist_db")
        for name, value in self:
            if name in ranges and value[0] > value[1]:
                raise ValueError(f"{name} is {list(value)}; allowed: the smaller one first. Swap")
        for name, least in (("lengths", 1), ("tone_seconds", 0.02), ("gap_seconds", 0.0)):
            value = dict(self)[name]
            if value[0] < least:
                raise ValueError(f"{name} begins with {value[0]}; allowed: {least} or more. Raise")
        # A tenth is enough for all that is held out to be different.
        possible = len(_DIALLED) ** self.lengths[1]
        if 10 * (self.held_out + self.tested) > possible:
            raise ValueError(
                f"there are {possible} numbers of {self.lengths[1]} keys, of which"
                f" {self.held_out + self.tested} are to be held out. Raise lengths, or lower them"
            )
        return self

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are."""
        counts: dict[Split, int] = {"validation": self.held_out, "test": self.tested}
        return ("train", *(split for split, count in counts.items() if count))

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the numbers of a split; inputs are (samples, rate).

        Raises:
            DataError: If the split has none.
        """
        texts = self._texts().get(split)
        if not texts:
            where = f"data dialled_numbers ({split})"
            name = {"validation": "held_out"}.get(split, "tested")
            raise DataError(where, "no numbers are held out for it", f"Set data.{name}")
        return [
            Example(
                f"{split}:{number}",
                (self._dial(text, split, number), self.sample_rate),
                text,
                f"dialled number {number} of {split}",
            )
            for number, text in enumerate(texts, 1)
        ]

    def contents(self) -> Mapping[str, Path | str]:
        """Return the settings, of which all follows."""
        # In any order they are the same sounds.
        settings = self.model_dump_json(exclude={"similar_lengths"})
        return {"dialled numbers": f"version {_FORMAT}, {settings}"}

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the sounds of a folder, or those that the rows of a file name; see
        ``DataSource.unlabelled``."""
        return read_files(path, SOUND_KINDS)

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        examples = self.examples(context.split, context.cache)
        lengths = np.array([[len(each.inputs[0])] for each in examples], np.int64)
        return open_indexed_stream(
            examples, context, similar_lengths=self.similar_lengths, lengths=lengths
        )

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many numbers there are, and how long they are."""
        card: dict[str, Any] = {
            "source": "dialled numbers, made from the seed",
            "licence": "none needed",
            "sample_rate": self.sample_rate,
        }
        for split in self.splits():
            found = self.examples(split, cache)
            seconds = [len(each.inputs[0]) / self.sample_rate for each in found]
            card[split] = (
                {"sounds": len(found), "minutes": round(sum(seconds) / 60, 2)}
                | lengths_of(seconds, "seconds")
                | lengths_of([len(each.target) for each in found], "keys")
            )
        return card

    # --------------------------------------------------------------------------------------- making
    def _random(self, purpose: str, number: int) -> np.random.Generator:
        """Return what one number is drawn from: the same whatever the others are."""
        return np.random.default_rng(seeding.key(self.seed, f"dialled {purpose}", number))

    def _texts(self) -> dict[Split, list[str]]:
        """Return the keys of all numbers; held-out ones are in no other split."""
        counts: dict[Split, int] = {
            "test": self.tested,
            "validation": self.held_out,
            "train": self.numbers,
        }
        taken: set[str] = set()
        found: dict[Split, list[str]] = {}
        for split, count in counts.items():
            own: list[str] = []
            for number in range(1, count + 1):
                random = self._random(f"keys of {split}", number)
                text = self._draw_text(random)
                # Short numbers are few, and some are drawn twice.
                while text in taken:
                    text = self._draw_text(random)
                own.append(text)
            taken.update(own)
            found[split] = own
        return found

    def _draw_text(self, random: np.random.Generator) -> str:
        size = int(random.integers(self.lengths[0], self.lengths[1] + 1))
        return "".join(_DIALLED[key] for key in random.integers(0, len(_DIALLED), size))

    def _dial(self, text: str, split: Split, number: int) -> NDArray[np.float32]:
        """Return the sound (S,) of a number."""
        random = self._random(f"sound of {split}", number)
        level = 10 ** (random.uniform(*self.level_db) / 20)
        twist = 10 ** (random.uniform(*self.twist_db) / 20)
        # One finger presses all keys, but never twice alike: lengths are near a speed of its own.
        speed = random.uniform()
        offset = 1 + random.uniform(-0.018, 0.018)
        parts = [self._silence(0.5 * self.gap_seconds[1], random)]
        for key in text:
            row, column = divmod(KEYS.index(key), 4)
            seconds = _within(self.tone_seconds, speed, random)
            time = np.arange(round(seconds * self.sample_rate)) / self.sample_rate
            low = np.sin(2 * np.pi * (_ROWS[row] * offset * time + random.uniform()))
            high = np.sin(2 * np.pi * (_COLUMNS[column] * offset * time + random.uniform()))
            swell = np.clip(np.minimum(time, seconds - time) / _RAMP, 0.0, 1.0)
            parts.append(swell * (low + twist * high) / (1 + twist))
            parts.append(
                np.zeros(round(_within(self.gap_seconds, speed, random) * self.sample_rate))
            )
        parts.append(self._silence(0.5 * self.gap_seconds[1], random))
        sound = level * np.concatenate(parts)
        # Of a tone at full swing, half of whose square is its power.
        power = level**2 * (1 + twist**2) / (2 * (1 + twist) ** 2)
        spread = (power * 10 ** (-random.uniform(*self.snr_db) / 10)) ** 0.5
        noisy = sound + spread * random.standard_normal(len(sound))
        # Louder than the loudest is cut off, as a telephone does.
        limited: NDArray[np.float32] = np.clip(noisy, -1.0, 1.0).astype(np.float32)
        return limited

    def _silence(self, most: float, random: np.random.Generator) -> NDArray[np.float64]:
        return np.zeros(round(random.uniform(0, most) * self.sample_rate))


def _within(given: _Range, speed: float, random: np.random.Generator) -> float:
    """Return a length near the place of a speed within a range, 0.8 to 1.2 times as long."""
    length = given[0] + speed * (given[1] - given[0])
    return float(np.clip(length * random.uniform(0.8, 1.2), *given))
