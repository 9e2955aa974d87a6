"""Sounds with transcripts, written in the forms that data sets of speech have: hummed words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

__all__ = ["SAID", "hum", "say", "write_library", "write_lines", "write_sound"]

SAID = ["one two", "two two", "three", "one", "three two one", "two one", "one one", "two"]


def hum(text: str, *, rate: int = 8000, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return a tone for each word, a quarter of a second long, with some noise."""
    time = np.arange(rate // 4) / rate
    words = [0.3 * np.sin(2 * np.pi * (200 + 40 * len(w)) * time) for w in text.split()]
    sound = np.concatenate(words)
    return sound + 0.01 * np.random.default_rng(seed).standard_normal(len(sound))


def write_sound(path: Path, samples: Any, rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.asarray(samples), rate)
    return path


def say(path: Path, text: str, seed: int = 0) -> Path:
    """Write the sound of a text."""
    return write_sound(path, hum(text, seed=seed))


def write_library(root: Path, form: str, *, folder: str = "") -> Path:
    """Write eight sounds with their transcripts in a form of ``data.form``, and return the root."""
    place = root / folder
    place.mkdir(parents=True, exist_ok=True)
    names = [f"a{n % 3}-{n:04}" for n in range(len(SAID))]
    pairs = list(zip(names, SAID, strict=True))
    if form == "metadata":
        lines = ["file_name,text", *(f"{name}.wav,{text}" for name, text in pairs)]
        write_lines(place / "metadata.csv", lines)
    elif form == "ljspeech":
        write_lines(place / "metadata.csv", [f"{n}|{t.upper()}|{t}" for n, t in pairs])
    elif form == "common_voice":
        rows = [f"{n.partition('-')[0]}\t{n}.wav\t{t}\t2" for n, t in pairs]
        write_lines(place / "validated.tsv", ["client_id\tpath\tsentence\tup_votes", *rows])
    elif form == "librispeech":
        write_lines(place / "a.trans.txt", [f"{name} {text}" for name, text in pairs])
    elif form == "kaldi":
        write_lines(place / "wav.scp", [f"{n} wav/{n}.wav" for n in names])
        write_lines(place / "text", [f"{name} {text}" for name, text in pairs])
        write_lines(place / "utt2spk", [f"{n} {n.partition('-')[0]}" for n in names])
    else:
        for name, text in pairs:
            write_lines(place / f"{name}.txt", [text])
    below = {"ljspeech": "wavs", "common_voice": "clips", "kaldi": "wav"}.get(form, "")
    for number, (name, text) in enumerate(pairs):
        say(place / below / f"{name}.wav", text, seed=number)
    return root


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
