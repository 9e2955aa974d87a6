"""Captions that volunteers read aloud for the stamps of Tux Paint, with their texts: written for
recipes that learn to transcribe, or are tested on other speakers than they learned from.

Get Debian's package with ``apt-get download tuxpaint-stamps-default`` (161 MB), unpack it with
``dpkg-deb -x FILE.deb FOLDER``, then run ``python benchmarks/tuxpaint_captions.py FOLDER OUT en``.
The package is under the GPL 2; English has 66 sounds (65 with a caption), French 928, Spanish 890,
and others between, each language by a few speakers at 44,100 samples a second.

``OUT`` gets an .ogg with a .txt of the same name for each caption, in a folder for each category of
stamps (``animals``, ``plants``, ...), as the source ``speech`` reads them.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

__all__ = ["main"]

STAMPS = "usr/share/tuxpaint/stamps"


def main() -> None:
    """Write the captions of a language, and print how many there are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the package was unpacked")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("language", help="en, or as files are named: fr, es, pt_BR ...")
    given = parser.parse_args()
    root = given.folder / STAMPS
    ending = "_desc.ogg" if given.language == "en" else f"_desc_{given.language}.ogg"
    written = 0
    without = []
    for sound in sorted(root.rglob(f"*{ending}")):
        place = sound.relative_to(root)
        stem = sound.name.removesuffix(ending)
        text = caption_of(sound.with_name(f"{stem}.txt"), given.language)
        if not text:
            without.append(place.as_posix())
            continue
        # Stamps of one name are in several folders: 001penny is both of Canada and of the US.
        name = "_".join((*place.parent.parts[1:], stem))
        folder = given.out / place.parts[0]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sound, folder / f"{name}.ogg")
        (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
        written += 1
    print(f"{written} captions; {len(without)} sounds without a caption: {without[:6]}")


def caption_of(path: Path, language: str) -> str:
    """Return the caption in a language, or an empty text; English is the first line."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if language == "en":
        return lines[0].strip() if lines else ""
    found = (line.partition("=") for line in lines[1:])
    captions = {name.removesuffix(".utf8"): text.strip() for name, _, text in found}
    return captions.get(language, "")


if __name__ == "__main__":
    main()
