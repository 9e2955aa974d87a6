"""Transcripts in files of their own: a .txt next to each sound, LibriSpeech's lists, Kaldi's
folders."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from groundup.core.errors import DataError
from groundup.core.settings import expand_path
from groundup.data.reading.compressed import DataFile, open_file
from groundup.data.reading.encodings import decode_lines, decode_text
from groundup.data.reading.utterances import (
    Transcripts,
    Utterance,
    find_sound,
    one_line,
    refuse_twice,
)
from groundup.media.audio import SoundPart

__all__ = ["read_kaldi", "read_librispeech", "read_text_files"]

_ARCHIVE = re.compile(r".*\.(ark|tar|zip)(:\d+)?")


def read_text_files(
    sounds: Mapping[str, Path], texts: Iterable[DataFile], transcripts: Transcripts
) -> None:
    """Add sounds with a .txt of the same name next to them.

    Args:
        sounds: By their names below the path.
        texts: The .txt files below it.
        transcripts: What they are added to.
    """
    stems = {name.rpartition(".")[0]: name for name in sounds}
    for file in texts:
        name = stems.get(file.relative.rpartition(".")[0])
        if name is None:
            transcripts.without_sound.append(file.relative)
            continue
        transcripts.files[file.relative] = file.path
        with open_file(file) as handle:
            text = one_line(decode_text(file, handle), str(file.path), "the file")
        folder = name.rpartition("/")[0]
        transcripts.add(Utterance(sounds[name], name, text, str(file.path), folder=folder))


def read_librispeech(
    sounds: Mapping[str, Path], lists: Iterable[DataFile], transcripts: Transcripts
) -> None:
    """Add the lines ``id words`` of files such as 61-70968.trans.txt, whose sounds are next to
    them; an id begins with its reader's number."""
    for file in lists:
        transcripts.files[file.relative] = file.path
        folder = file.relative.rpartition("/")[0]
        here = {Path(name).stem: name for name in sounds if name.rpartition("/")[0] == folder}
        seen: set[str] = set()
        for where, identity, text in _read_lines(file):
            refuse_twice(identity, where, seen)
            name = here.get(identity)
            if name is None:
                transcripts.without_sound.append(f"{identity} ({where})")
                continue
            speaker = identity.partition("-")[0]
            transcripts.add(Utterance(sounds[name], name, text, where, speaker, None, folder))


def read_kaldi(
    folder: Path, relative: str, encoding: str | None, transcripts: Transcripts
) -> list[Path]:
    """Add the utterances of a folder with wav.scp and text, and return all of its sounds.

    Args:
        folder: It; sounds are named from it, or from the current folder.
        relative: Its name below the path that is read.
        encoding: Of its files.
        transcripts: What they are added to.

    Raises:
        DataError: If a file is missing, a sound is made by a command, which is never run, or is a
            part of an archive, or a part of a recording has no times.
    """

    def lines_of(name: str) -> Iterator[tuple[str, str, str]]:
        path = folder / name
        own = f"{relative}/{name}".removeprefix("/")
        transcripts.files[own] = path
        return _read_lines(DataFile(path, own, ".txt", "", encoding))

    if not (folder / "text").is_file():
        raise DataError(
            str(folder),
            "there is a wav.scp, but no file text with the transcripts",
            "Put it next to wav.scp, or name another folder",
        )
    recordings: dict[str, Path | None] = {}
    seen: set[str] = set()
    for where, identity, place in lines_of("wav.scp"):
        refuse_twice(identity, where, seen)
        recordings[identity] = _find_kaldi_sound(folder, place, where)
    sounds: dict[str, Path | SoundPart | None] = {**recordings}
    if (folder / "segments").is_file():
        seen.clear()
        sounds = {}
        for where, identity, rest in lines_of("segments"):
            refuse_twice(identity, where, seen)
            sounds[identity] = _find_part(recordings, rest, where)
    speakers = {}
    if (folder / "utt2spk").is_file():
        speakers = {identity: speaker for _, identity, speaker in lines_of("utt2spk")}
    said: set[str] = set()
    for where, identity, text in lines_of("text"):
        refuse_twice(identity, where, said)
        sound = sounds.get(identity)
        if sound is None:
            transcripts.without_sound.append(f"{identity} ({where})")
            continue
        name = f"{relative}/{identity}".removeprefix("/")
        speaker = speakers.get(identity, "")
        transcripts.add(Utterance(sound, name, text, where, speaker, None, relative))
    others = [identity for identity in sounds if identity not in said]
    transcripts.without_transcript += [f"{name} ({folder})" for name in others]
    return [sound for sound in recordings.values() if sound is not None]


def _find_part(recordings: Mapping[str, Path | None], text: str, where: str) -> SoundPart | None:
    """Return the part of a recording that a line of segments says, after its id: the recording's
    id, where it begins and where it ends."""
    words = text.split()
    times: list[float] = []
    with contextlib.suppress(ValueError):
        times = [float(word) for word in words[1:]]
    if len(times) != 2 or not 0 <= times[0] < times[1] < math.inf:
        raise DataError(
            where,
            f"{text!r:.60} is no part of a recording; allowed: its id, begin and end in seconds",
            "Correct the line",
        )
    recording = recordings.get(words[0])
    return None if recording is None else SoundPart(recording, *times)


def _find_kaldi_sound(folder: Path, place: str, where: str) -> Path | None:
    # A line of somebody else's file would run on this machine as whoever trains.
    if place.endswith("|"):
        raise DataError(
            where,
            f"the sound is made by a command, which is never run: {place[:60]}",
            "Write its output to a file, and name that",
        )
    if _ARCHIVE.fullmatch(place):
        raise DataError(
            where,
            f"the sound is a part of an archive: {place[:60]}; allowed: a file of its own",
            "Write each sound to a file, as Kaldi's wav-copy does",
        )
    found = find_sound(folder, place)
    if found is not None:
        return found
    other = Path(expand_path(place))
    return other if other.is_file() else None


def _read_lines(file: DataFile) -> Iterator[tuple[str, str, str]]:
    """Yield (where, the first word, the others) of each line that is not blank."""
    with open_file(file) as handle:
        for number, line in enumerate(decode_lines(file, handle), 1):
            words = line.split(maxsplit=1)
            if words:
                rest = words[1] if len(words) > 1 else ""
                yield f"{file.path} line {number}", words[0], " ".join(rest.split())
