"""Strings of digits that a synthesiser speaks with many voices: written for recipes that learn to
transcribe with CTC, voices held out.

Install Debian's espeak-ng (GPL 3; what it speaks is free), then run
``python benchmarks/espeak_digits.py OUT``. Real recordings of digits by many people are in no
package; synthetic voices are less different than people, and tell how well a recipe works, not how
well it would hear a person.

Each of the synthesiser's variants of a voice is a speaker, with an accent, a pitch and a speed of
its own, and speaks strings of 3 to 10 digits. ``OUT`` gets .flac files at 8,000 samples a second
and a ``metadata.csv`` with ``file_name``, ``text`` (such as ``31415``), ``speaker_id`` and
``split``, as the source ``speech`` reads it. Variants that are nearly one voice are on one side.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
from pathlib import Path

import numpy as np
import soundfile

from groundup.media.resampling import resample

__all__ = ["main"]

ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan")
# Those of the synthesiser's that sound like people: no robots, whispers and cartoons.
# fmt: off
VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt",
    "klatt2", "klatt3", "klatt4", "adam", "Alex", "Alicia", "Andrea", "Andy", "Annie", "anika",
    "announcer", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "Denis",
    "Diogo", "ed", "edward", "edward2", "Gene", "Gene2", "gustave", "Henrique", "Hugo", "iven",
    "iven2", "iven3", "Jacky", "john", "Lee", "linda", "marcelo", "Marco", "Mario", "max",
    "Michael", "michel", "miguel", "Mike", "norbert", "pablo", "paul", "pedro", "quincy", "rob",
    "robert", "sandro", "shelby", "steph", "steph2", "steph3", "travis", "Tweaky", "victor",
    "zac",
)
# fmt: on
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
RATE = 8000
HELD_OUT = 8  # voices of the test, about, and as many of the validation


def main() -> None:
    """Let every voice speak, and write what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--strings", type=int, default=30, help="of each voice")
    given = parser.parse_args()
    random = np.random.default_rng(0)
    order = random.permutation(VARIANTS).tolist()
    sides = draw_families(order)
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "speaker_id", "split"])
        for voice in order:
            split = sides[family_of(voice)]
            accent = ACCENTS[int(random.integers(len(ACCENTS)))]
            pitch = int(random.integers(30, 71))
            speed = int(random.integers(120, 201))
            for number in range(given.strings):
                text = "".join(map(str, random.integers(0, 10, int(random.integers(3, 11)))))
                sound = speak(text, f"{accent}+{voice}", pitch, speed, random)
                path = given.out / "sounds" / f"{voice}_{number:03}.flac"
                path.parent.mkdir(exist_ok=True)
                soundfile.write(path, sound, RATE)
                writer.writerow([f"sounds/{path.name}", text, voice, split])
    for split in ("train", "validation", "test"):
        voices = [voice for voice in order if sides[family_of(voice)] == split]
        print(f"{split}: {len(voices)} voices, {given.strings} strings each: {', '.join(voices)}")


def family_of(voice: str) -> str:
    """Return what a voice has in common with others: steph2 is nearly steph, but m2 is not m1."""
    name = voice.rstrip("0123456789")
    return name if len(name) > 1 else voice


def draw_families(order: list[str]) -> dict[str, str]:
    """Return the split of each family of voices, the first ones for the test."""
    sides: dict[str, str] = {}
    for split in ("test", "validation"):
        held = 0
        for family in dict.fromkeys(map(family_of, order)):
            if family not in sides and held < HELD_OUT:
                sides[family] = split
                held += sum(family_of(voice) == family for voice in order)
    return {family_of(voice): sides.get(family_of(voice), "train") for voice in order}


def speak(
    digits: str, voice: str, pitch: int, speed: int, random: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the sound of a string; nobody speaks twice at quite the same pitch and speed."""
    words = " ".join(WORDS[int(digit)] for digit in digits)
    own_pitch = pitch + int(random.integers(-5, 6))
    own_speed = speed + int(random.integers(-12, 13))
    command = ["espeak-ng", "-v", voice, "-p", f"{own_pitch}", "-s", f"{own_speed}", "--stdout"]
    done = subprocess.run([*command, words], check=True, capture_output=True)
    samples, rate = soundfile.read(io.BytesIO(done.stdout))
    # Voices differ in loudness, and microphones in distance.
    gain = 10 ** (random.uniform(-18, 0) / 20) / max(np.abs(samples).max(), 1e-3)
    return np.clip(resample(samples * gain, rate, RATE), -1, 1)


if __name__ == "__main__":
    main()
