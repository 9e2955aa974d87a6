"""Sounds with what is said in them, as readers of transcripts find them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from groundup.core.errors import DataError
from groundup.core.values import Split, StoredFile
from groundup.data.reading.files import check_text
from groundup.media.audio import SOUND_KINDS, SoundPart

__all__ = [
    "SpeechColumns",
    "Transcripts",
    "Utterance",
    "find_sound",
    "one_line",
    "refuse_twice",
    "shown",
]

_NAMED = 6  # files that a message names
# Folders that hold the sounds next to a table in data sets of speech.
_FOLDERS = ("", "wavs", "clips", "wav", "audio", "sounds")


class Utterance(NamedTuple):
    """A sound and its transcript.

    Attributes:
        sound: A Path, or a StoredFile in a row of a data set.
        name: Unique below the path that is read: the sound's path below it, or its id.
        text: The transcript, on one line.
        origin: Where the transcript says so.
        speaker: Who speaks, where that is known.
        split: The split that the data say it is of.
        folder: The folder whose name may be a split's.
        columns: Of the row that it was read from.
    """

    sound: Path | StoredFile
    name: str
    text: str
    origin: str
    speaker: str = ""
    split: Split | None = None
    folder: str = ""
    columns: Mapping[str, Any] = {}

    @property
    def file(self) -> Path:
        """The file that the sound is in, of which it may be a part."""
        return self.sound.path if isinstance(self.sound, SoundPart) else Path(str(self.sound))


class SpeechColumns(NamedTuple):
    """Which columns of a table are read, where the recipe names them."""

    audio: str | None
    text: str | None
    split: str | None


@dataclass
class Transcripts:
    """What the transcripts of a path say, and what does not fit together in them.

    Attributes:
        form: In which form they are, in the words of data cards.
        found: The utterances.
        files: What was read besides the sounds, by name below the path.
        sounds: Those with a transcript, be it an empty one.
        without_sound: Names of transcripts without a sound.
        without_words: Names of sounds whose transcript is empty.
        without_transcript: Names of sounds without a transcript.
        warnings: What looks like a mistake, for the log and the data card.
    """

    form: str
    found: list[Utterance] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    sounds: set[Any] = field(default_factory=set)
    without_sound: list[str] = field(default_factory=list)
    without_words: list[str] = field(default_factory=list)
    without_transcript: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, utterance: Utterance) -> None:
        """Add an utterance, unless nothing is said in it."""
        self.sounds.add(utterance.sound)
        if utterance.text:
            self.found.append(utterance)
        else:
            self.without_words.append(utterance.name)

    def merge(self, other: Transcripts) -> None:
        """Add what the transcripts of another path say."""
        if other.form not in self.form.split("; "):
            self.form = "; ".join(filter(None, (self.form, other.form)))
        self.found += other.found
        self.files |= other.files
        self.sounds |= other.sounds
        self.without_sound += other.without_sound
        self.without_words += other.without_words
        self.without_transcript += other.without_transcript
        self.warnings += other.warnings

    def left_out(self) -> dict[str, list[str]]:
        """Return the names of what cannot be used, by the reason."""
        reasons = {
            "transcripts without a sound": self.without_sound,
            "sounds without a transcript": self.without_transcript,
            "sounds with an empty transcript": self.without_words,
        }
        return {reason: names for reason, names in reasons.items() if names}


def shown(names: Sequence[str]) -> str:
    """Return the first of some names."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def find_sound(folder: Path, name: str) -> Path | None:
    """Return the sound that a table calls so: its path from the table's folder, or from a folder in
    it that is called as those of sounds are, with or without its suffix; None where there is none.
    """
    for place in _FOLDERS:
        path = folder / place / name
        # A name without a suffix is an id, as LJSpeech has them; 1.5 is one too.
        known = path.suffix.lower() in SOUND_KINDS
        ends = ("",) if known else ("", *SOUND_KINDS)
        for end in ends:
            found = path.with_name(path.name + end)
            if found.is_file():
                return found
    return None


def one_line(value: Any, where: str, what: str) -> str:
    """Return a transcript with single spaces between its words; empty where there is none.

    Raises:
        DataError: If it is no text.
    """
    # What has no value is NaN in Parquet, which differs from itself.
    if value is None or value != value:
        return ""
    return " ".join(check_text(value, where, what).split())


def refuse_twice(name: str, where: str, seen: set[str]) -> None:
    """Raise an error for a name that a table or list has already.

    Raises:
        DataError: Naming it.
    """
    if name in seen:
        raise DataError(where, f"{name} has a transcript already", "Remove one of the two")
    seen.add(name)
