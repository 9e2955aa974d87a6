"""The stamps of Tux Paint, 64 pixels high and wide, and things among them in several colours, with
captions: combinations of a thing, a colour and a direction, of which some are held out.

Get Debian's package with ``apt-get download tuxpaint-stamps-default`` (161 MB), unpack it with
``dpkg-deb -x FILE.deb FOLDER``, then run ``python benchmarks/tuxpaint_combinations.py FOLDER OUT``.
The package is under the GPL 2.

``OUT/stamps`` gets every stamp that is a PNG, laid on white, in a folder for each category: what an
autoencoder learns from. ``OUT/combinations`` gets ``train``, ``validation`` and ``test``, each with
a ``metadata.csv`` of ``file_name`` and ``text`` such as "a red banana, mirrored". The same stamp is
in all three, but no combination is: of each twelve, one or two are held out by a hash of the
caption. Mirrored is what the file shows from the other side.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

__all__ = ["main"]

STAMPS = "usr/share/tuxpaint/stamps"
SIDE = 64
# A hue in degrees; None takes the colours away.
COLOURS = {"red": 0, "yellow": 52, "green": 120, "blue": 215, "purple": 285, "grey": None}
THING = re.compile(r"(An?|Some|The) ([a-z]+(?: [a-z]+)?)\.")
# What is no thing of any colour, or says a colour itself.
OTHERS = re.compile(
    r"letter|number|sign|note|coin|piece|clef|balloon|red|yellow|green|blue|purple|gr[ae]y|orange|black|white"
)
HELD_OUT = {0: "validation", 1: "test"}  # of sixteen


def main() -> None:
    """Write both folders, and print what they hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the package was unpacked")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--things", type=int, default=100, help="how many are coloured, at most")
    given = parser.parse_args()
    root = given.folder / STAMPS
    # The other side of a stamp has a file of its own where it is not the same mirrored.
    stamps = {
        path.relative_to(root): path
        for path in sorted(root.rglob("*.png"))
        if not path.stem.endswith(("_mirror", "_flip"))
    }
    for name, path in stamps.items():
        target = given.out / "stamps" / name.parts[0] / "-".join(name.parts[1:])
        target.parent.mkdir(parents=True, exist_ok=True)
        ground = on_white(in_a_square(path, "white"))
        ground.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(target)
    things = things_of(stamps, given.things)
    counts = write_combinations(things, given.out / "combinations")
    print(f"{len(stamps):,} stamps; {len(things)} things: {dict(sorted(counts.items()))}")


def in_a_square(path: Path, around: str | tuple[int, int, int, int]) -> Any:
    """Return a stamp in the middle of a square."""
    image = Image.open(path).convert("RGBA")
    side = max(image.size)
    square = Image.new("RGBA", (side, side), around)
    square.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def read(path: Path) -> Any:
    """Return a stamp with nothing around it, SIDE high and wide."""
    square = in_a_square(path, (255, 255, 255, 0))
    # Colours of clear pixels would come through at the edges.
    return square.convert("RGBa").resize((SIDE, SIDE), Image.Resampling.LANCZOS).convert("RGBA")


def on_white(image: Any) -> Any:
    """Return a picture without transparency."""
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image)
    return ground.convert("RGB")


def things_of(stamps: dict[Path, Path], most: int) -> dict[str, Path]:
    """Return the stamps of things by what their captions say, each caption of one stamp only."""
    found: dict[str, list[Path]] = {}
    for path in stamps.values():
        text = path.with_suffix(".txt")
        lines = text.read_text(encoding="utf-8").splitlines() if text.is_file() else []
        match = THING.fullmatch(lines[0].strip()) if lines else None
        if match and not OTHERS.search(match[2]):
            found.setdefault(match[2], []).append(path)
    alone = {name: paths[0] for name, paths in found.items() if len(paths) == 1}
    # By a hash, so that the first ones are of all categories.
    chosen = sorted(alone, key=lambda name: hashlib.sha256(name.encode()).digest())[:most]
    return {name: alone[name] for name in sorted(chosen)}


def write_combinations(things: dict[str, Path], out: Path) -> Counter[str]:
    """Write every thing in every colour, from both sides, and return how many each split has."""
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
    for thing, path in things.items():
        image = read(path)
        for colour, hue in COLOURS.items():
            painted = on_white(paint(image, hue))
            for side in ("", ", mirrored"):
                caption = f"a {colour} {thing}{side}"
                digest = hashlib.sha256(caption.encode()).digest()[0] % 16
                split = HELD_OUT.get(digest, "train")
                name = f"{thing}-{colour}{side}".replace(", ", "-").replace(" ", "_") + ".png"
                (out / split).mkdir(parents=True, exist_ok=True)
                shown = ImageOps.mirror(painted) if side else painted
                shown.save(out / split / name)
                rows[split].append((name, caption))
    for split, own in rows.items():
        with (out / split / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("file_name", "text"), *own])
    return Counter({split: len(own) for split, own in rows.items()})


def paint(image: Any, hue: float | None) -> Any:
    """Return a picture in one hue, as bright as it was; greys become coloured too."""
    pixels = np.asarray(image).astype(np.float64) / 255
    light = pixels[..., :3] @ (0.299, 0.587, 0.114)
    if hue is None:
        painted = np.repeat(light[..., None], 3, 2)
    else:
        # From black over the colour to white.
        pure = np.array([np.clip(abs((hue / 60 + n) % 6 - 3) - 1, 0, 1) for n in (0, 4, 2)])
        dark = np.minimum(1, 2 * light)[..., None] * pure
        painted = dark + np.clip(2 * light - 1, 0, 1)[..., None] * (1 - pure) * 0.8
    shown = np.concatenate([painted, pixels[..., 3:]], 2)
    return Image.fromarray((shown.clip(0, 1) * 255).round().astype(np.uint8), "RGBA")


if __name__ == "__main__":
    main()
