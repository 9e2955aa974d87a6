"""The voice of the Asterisk telephone system with its transcripts: written for recipes that learn
to transcribe.

Get Debian's packages with ``apt-get download asterisk-core-sounds-en-wav asterisk-core-sounds-en``,
unpack both with ``dpkg-deb -x FILE.deb FOLDER`` into one folder, then run
``python benchmarks/asterisk_voice.py FOLDER OUT``. The sounds are under CC-BY-SA 3.0: 568 prompts
of one professional speaker, 25.5 minutes at 8,000 samples a second, 551 of them with words.

``OUT`` gets the sounds and a ``metadata.csv`` with the columns ``file_name``, ``text``, ``family``
and ``split``, as the source ``speech`` reads it. Prompts that belong together, such as all of the
voice mail's, begin alike: their family is on one side as a whole, because they say the same words
in the same order. Sounds without words (tones, silence, monkeys) are left out, and so are the
remarks in brackets that nobody says; ``*`` and ``#`` are written as they are said, star and pound.
Three are longer than 30 seconds.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

__all__ = ["main"]

SOUNDS = "usr/share/asterisk/sounds/en_US_f_Allison"
TEXTS = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
REMARK = re.compile(r"\s*[\[(<][^\])>]*[\])>]")
# What is said of keys of a telephone.
KEYS = {"*": "star", "#": "pound"}
# Two names of one family each.
SAME = {"confbridge": "conf", "priv": "privacy"}


def main() -> None:
    """Write the sounds and their table, and print what each split holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the packages were unpacked")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--test", type=int, default=160, help="prompts held out, at most")
    parser.add_argument("--validation", type=int, default=50, help="as many more")
    given = parser.parse_args()
    texts = read_transcripts(given.folder / TEXTS)
    found = {name: text for name, text in texts.items() if sound_of(given.folder, name).is_file()}
    room = {"test": given.test, "validation": given.validation}
    sides = draw_families(Counter(map(family_of, found)), room)
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "family", "split"])
        for name, text in found.items():
            # A folder called silence or digits says nothing that the family does not.
            path = given.out / "sounds" / f"{name.replace('/', '_')}.wav"
            path.parent.mkdir(exist_ok=True)
            shutil.copyfile(sound_of(given.folder, name), path)
            family = family_of(name)
            writer.writerow([f"sounds/{path.name}", text, family, sides[family]])
    for split in ("train", "validation", "test"):
        families = [family for family, side in sides.items() if side == split]
        prompts = sum(sides[family_of(name)] == split for name in found)
        print(f"{split}: {prompts} prompts of {len(families)} families")
    print(f"without a sound: {sorted(set(texts) - set(found))}")


def sound_of(folder: Path, name: str) -> Path:
    """Return where the sound of a prompt is."""
    return folder / SOUNDS / f"{name}.wav"


def read_transcripts(path: Path) -> dict[str, str]:
    """Return the words of each prompt that has any, by its name."""
    found = {}
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines():
        name, _, text = line.partition(":")
        words = REMARK.sub("", text).strip()
        for key, said in KEYS.items():
            words = words.replace(key, said)
        if words and not line.startswith(";"):
            found[name] = words
    return found


def family_of(name: str) -> str:
    """Return the folder of a prompt, or what its name begins with."""
    folder, _, _ = name.rpartition("/")
    first = folder or name.partition("-")[0]
    return SAME.get(first, first)


def draw_families(sizes: Counter[str], room: Mapping[str, int]) -> dict[str, str]:
    """Return the split of each family: in a fixed order by chance, each where there is room.

    Args:
        sizes: How many prompts each family has.
        room: How many prompts each split but ``train`` takes, at most.
    """
    room = dict(room)
    sides = dict.fromkeys(sizes, "train")
    for family in sorted(sizes, key=lambda each: hashlib.sha256(each.encode()).hexdigest()):
        side = next((split for split, left in room.items() if sizes[family] <= left), "train")
        # Of families of one prompt a split is full at once, and half of them is enough.
        sides[family] = side
        if side != "train":
            room[side] -= sizes[family]
    return sides


if __name__ == "__main__":
    main()
