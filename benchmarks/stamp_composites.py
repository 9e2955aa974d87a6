"""Composites of stamps for detection: cut-outs with their alpha pasted on varied grounds, as COCO.

    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb .
    python benchmarks/stamp_composites.py usr/share/tuxpaint/stamps data/composites
    groundup data inspect my_detector.yaml data.path=data/composites

The stamps are real photographs and drawings (GPL-2). One to five of them are on a picture, each at
least 75% visible; no cut-out is in two splits, and neither are those of one animal. Boxes go around
the pixels that are seen, and ``area`` counts these.

A class is a kind of thing that a person names at first sight, and that has cut-outs enough which
look alike: six or more are for validation, six or more for the test, and as many as both have are left
to learn from. So animals are photographs of birds and mammals, and tents are no buildings. Chess
pieces, planets and road signs are too few; food and vehicles are many and of all shapes: tried, a
detector found the unseen ones but called them something else, as a dozen cut-outs do not teach what
a vehicle is. Cut-outs of all other kinds are in the grounds, enlarged and blurred or cropped, so
that colours and textures alone are no thing.

Cut-outs of training pictures are also bent, stretched, sheared, turned and recoloured before they
are pasted, differently each time; those of the other two splits never. Everything is drawn by the
seed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

CLASSES = {
    "animal": ("animals/birds", "animals/mammals", "animals/marsupials"),
    "building": ("town/houses",),
    "coin": ("symbols/money/*/coins", "symbols/money/japanese"),
    "flower": ("plants/flowers",),
    "hand": ("symbols/alphabets/asl",),
    "letter": ("symbols/alphabets/*/filled",),
    "outlined letter": ("symbols/alphabets/*/outlined",),
}
# Not what their folder says.
ODD = {"chuvanna_plastic_poo", "wings", "hedgehog", "kangaroo-silo"}
ODD |= {"cave_entrance", "circus", "medieval_tent", "tent", "tepee"}
# Of animals photographs alone: a drawn one looks like none of them.
DRAWN = ("animals/*/cartoon/*", "animals/*/toys/*")
# Things that look wrong upside down or mirrored are still pasted as they are.
FIXED = ("letter", "outlined letter", "hand", "coin")
SIDE = 128
SMALLEST, LARGEST = 26, 76
ROOM = 90  # pixels of a longer side that is bent and recoloured
VISIBLE = 0.75  # of a cut-out, whatever lies on it
OVERLAP = 0.3  # intersection over union of two boxes
CONTRAST = 60  # of 255: black lines on black are there for nobody
FEWEST = 6  # families of a class in validation, and in the test
KEPT = 200  # pixels of a cut-out's longer side that are kept

Pixels = NDArray[np.uint8]


class CutOut(NamedTuple):
    """A stamp without its empty margins."""

    label: str
    name: str
    picture: Image.Image


def main() -> None:
    """Read the command line, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stamps", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=8000)
    parser.add_argument("--validation", type=int, default=300)
    parser.add_argument("--test", type=int, default=500)
    given = parser.parse_args()
    counts = {"train": given.train, "validation": given.validation, "test": given.test}
    cut_outs, others = read_stamps(given.stamps)
    sides = divide(cut_outs, given.seed)
    for number, (split, count) in enumerate(counts.items()):
        write_split(given.folder, split, count, sides[split], others, (given.seed, number))
        own = {label: sum(e.label == label for e in sides[split]) for label in CLASSES}
        print(f"{split}: {count} pictures of {len(sides[split])} cut-outs: {own}")


def read_stamps(root: Path) -> tuple[list[CutOut], list[CutOut]]:
    """Return the cut-outs of the classes, and all others."""
    folders = {
        path: label
        for label, globs in CLASSES.items()
        for each in globs
        for path in root.glob(each)
    }
    chosen, others = [], []
    for path in sorted(root.rglob("*.png")):
        picture = Image.open(path).convert("RGBA")
        box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox()
        if box is None:
            continue
        picture = picture.crop(box)
        picture.thumbnail((KEPT, KEPT), Image.Resampling.LANCZOS)
        label = next((folders[above] for above in path.parents if above in folders), "")
        name = path.relative_to(root).as_posix()
        odd = path.stem in ODD or "_mirror" in path.stem
        odd = odd or any(fnmatch(name, drawn) for drawn in DRAWN)
        (chosen if label and not odd else others).append(CutOut(label, name, picture))
    return chosen, others


def family(name: str) -> str:
    """Return what cut-outs of the same thing have in common, such as lion and lion-2, gnu-baby and
    gnu-stand; stamps of symbols are each their own."""
    stem = Path(name).stem.lower()
    if name.startswith(("animals", "town")):
        return re.split(r"[-_\d]", stem)[0]
    return name


def divide(cut_outs: list[CutOut], seed: int) -> dict[str, list[CutOut]]:
    """Return the cut-outs of each split: of each class about a tenth of the families is validation
    and two tenths are the test, by a hash of their names."""
    sides: dict[str, list[CutOut]] = {"train": [], "validation": [], "test": []}
    for label in CLASSES:
        own = [each for each in cut_outs if each.label == label]
        families = sorted(
            {family(each.name) for each in own},
            key=lambda word: hashlib.sha256(f"{seed} {label} {word}".encode()).digest(),
        )
        first = max(FEWEST, round(0.15 * len(families)))
        second = first + max(FEWEST, round(0.2 * len(families)))
        for each in own:
            place = families.index(family(each.name))
            side = "validation" if place < first else "test" if place < second else "train"
            sides[side].append(each)
    return sides


def write_split(
    folder: Path,
    split: str,
    count: int,
    cut_outs: list[CutOut],
    others: list[CutOut],
    seed: tuple[int, int],
) -> None:
    """Write the pictures of a split, and its annotations."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    by_label: dict[str, list[CutOut]] = {label: [] for label in CLASSES}
    for each in cut_outs:
        by_label[each.label].append(each)
    images, annotations = [], []
    for number in range(count):
        rng = np.random.default_rng((*seed, number))
        ground = draw_ground(rng, others)
        picture, found = compose(rng, ground, by_label, split)
        name = f"{number:06}.png"
        picture.save(folder / split / name, compress_level=1)
        # As in COCO: numbers of pictures and classes are no places in a list.
        images.append({"id": 10 * number + 3, "file_name": name, "width": SIDE, "height": SIDE})
        for label, visible in found:
            left, top, right, bottom = box_of(visible)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 10 * number + 3,
                    "category_id": 3 * list(CLASSES).index(label) + 2,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(visible.sum()),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 3 * place + 2, "name": label} for place, label in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def compose(
    rng: np.random.Generator, ground: Pixels, by_label: dict[str, list[CutOut]], split: str
) -> tuple[Image.Image, list[tuple[str, NDArray[np.bool_]]]]:
    """Return a ground with one to five cut-outs on it, and what is seen of each."""
    canvas = Image.fromarray(ground).convert("RGB")
    wanted = int(rng.integers(1, 6))
    placed: list[tuple[str, NDArray[np.bool_], int]] = []  # label, what is seen, pixels of all
    for _ in range(8 * wanted):
        if len(placed) == wanted:
            break
        label = list(CLASSES)[int(rng.integers(len(CLASSES)))]
        cut_out = by_label[label][int(rng.integers(len(by_label[label])))]
        shape = change(rng, vary(rng, cut_out) if split == "train" else cut_out)
        left = int(rng.integers(0, SIDE - shape.width + 1))
        top = int(rng.integers(0, SIDE - shape.height + 1))
        mask = np.zeros((SIDE, SIDE), np.bool_)
        alpha = np.asarray(shape.getchannel("A")) > 127
        mask[top : top + shape.height, left : left + shape.width] = alpha
        under = [(name, seen & ~mask, whole) for name, seen, whole in placed]
        if not mask.any() or any(seen.sum() < VISIBLE * whole for _, seen, whole in under):
            continue
        if any(overlap(seen, mask) > OVERLAP for _, seen, _ in placed):
            continue
        ink = np.asarray(shape.convert("RGB"), np.float64)[alpha]
        if np.abs(ink - np.asarray(canvas, np.float64)[mask]).mean() < CONTRAST:
            continue
        canvas.paste(shape, (left, top), shape)
        placed = [*under, (label, mask, int(mask.sum()))]
    return canvas, [(name, seen) for name, seen, _ in placed]


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what is set in a mask."""
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the intersection over union of the boxes of two masks."""
    a, b = box_of(one), box_of(other)
    wide = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    tall = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    sizes = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return wide * tall / (sizes - wide * tall)


def change(rng: np.random.Generator, cut_out: CutOut) -> Image.Image:
    """Return a cut-out in another size, turned a little, mirrored, lighter or darker."""
    shape = cut_out.picture
    if cut_out.label not in FIXED and rng.random() < 0.5:
        shape = shape.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if "letter" in cut_out.label:
        # Black alone would be told by its colour.
        colour = tuple(int(each) for each in rng.integers(0, 256, 3))
        inked = Image.new("RGBA", shape.size, colour)
        light = np.asarray(shape.convert("L"), np.float64)[..., None] / 255
        mixed = np.asarray(inked, np.float64) * (1 - light) + 255 * light
        mixed[..., 3] = np.asarray(shape.getchannel("A"))
        shape = Image.fromarray(mixed.round().astype(np.uint8))
    factor = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST)))) / max(shape.size)
    size = (max(6, round(shape.width * factor)), max(6, round(shape.height * factor)))
    shape = shape.resize(size, Image.Resampling.LANCZOS)
    shape = shape.rotate(
        float(rng.uniform(-15, 15)), Image.Resampling.BICUBIC, expand=True, fillcolor=(0, 0, 0, 0)
    )
    box = shape.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox()
    shape = shape.crop(box) if box else shape
    shape.thumbnail((SIDE, SIDE))
    colours = np.asarray(shape, np.float64).copy()
    colours[..., :3] *= rng.uniform(0.75, 1.25, 3) * rng.uniform(0.85, 1.1)
    return Image.fromarray(colours.clip(0, 255).round().astype(np.uint8))


def vary(rng: np.random.Generator, cut_out: CutOut) -> CutOut:
    """Return a cut-out of the training pictures bent, turned, stretched and in other colours, as a
    hundred cut-outs of a class would differ, of which there are a dozen."""
    shape = cut_out.picture.copy()
    # Larger than most are pasted; each change takes its time.
    shape.thumbnail((ROOM, ROOM))
    shape = _bend(rng, shape)
    if rng.random() < 0.6:
        shape = _recolour(rng, shape)
    return cut_out._replace(picture=shape)


def _bend(rng: np.random.Generator, shape: Image.Image) -> Image.Image:
    """Stretch, shear and sometimes turn a shape, and move the 16 crossings of a grid at random, with
    all between them, in one resampling."""
    change = np.diag(np.exp(rng.uniform(-0.2, 0.2, 2)))
    change[0, 1] = rng.uniform(-0.15, 0.15)
    angle = np.deg2rad(rng.uniform(-30, 30)) * (rng.random() < 0.4)
    cosine, sine = np.cos(angle), np.sin(angle)
    change = np.array([[cosine, sine], [-sine, cosine]]) @ change
    size = np.array(shape.size, np.float64)
    # Where the corners go, and room for what is bent outwards.
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * size / 2
    room = (1.1 * np.ptp(corners @ np.linalg.inv(change).T, axis=0)).astype(int) + 4
    x, y = (np.linspace(0, each, 4).round().astype(int).tolist() for each in room)
    grid = np.stack(np.meshgrid(x, y), -1) - room / 2
    moved = grid @ change.T + size / 2 + rng.normal(0, 0.03, grid.shape) * size.max()
    mesh = [
        (
            (x[i], y[j], x[i + 1], y[j + 1]),
            (*moved[j, i], *moved[j + 1, i], *moved[j + 1, i + 1], *moved[j, i + 1]),
        )
        for i, j in np.ndindex(3, 3)
    ]
    wide, tall = room.tolist()
    bilinear = Image.Resampling.BILINEAR
    return shape.transform((wide, tall), Image.Transform.MESH, mesh, bilinear)


def _recolour(rng: np.random.Generator, shape: Image.Image) -> Image.Image:
    """Turn the hues, and change saturation, contrast and brightness."""
    alpha = shape.getchannel("A")
    hue, saturation, value = shape.convert("RGB").convert("HSV").split()
    turned = int(rng.integers(256)) if rng.random() < 0.5 else int(rng.integers(-12, 13))
    hue = hue.point(lambda each: (each + turned) % 256)
    strength = float(rng.uniform(0, 1.4))
    saturation = saturation.point(lambda each: min(255, round(each * strength)))
    power = float(np.exp(rng.uniform(-0.5, 0.5)))
    value = value.point(lambda each: round(255 * (each / 255) ** power))
    coloured = Image.merge("HSV", (hue, saturation, value)).convert("RGBA")
    coloured.putalpha(alpha)
    return coloured


# ------------------------------------------------------------------------------------------ grounds
def draw_ground(rng: np.random.Generator, others: list[CutOut]) -> Pixels:
    """Return a ground of one of several kinds."""
    kinds: tuple[Callable[[np.random.Generator, list[CutOut]], Any], ...] = (
        _gradient,
        _clouds,
        _texture,
        _blurred,
        _photograph,
        _photograph,
    )
    ground = kinds[int(rng.integers(len(kinds)))](rng, others)
    noisy = ground + rng.normal(0, rng.uniform(0, 6), ground.shape)
    return noisy.clip(0, 255).round().astype(np.uint8)  # type: ignore[no-any-return]


def _gradient(rng: np.random.Generator, others: list[CutOut]) -> NDArray[np.float64]:
    one, two = rng.uniform(0, 255, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    along = (np.cos(angle) * x + np.sin(angle) * y + 1.5) / 3
    return one + (two - one) * along[..., None]  # type: ignore[no-any-return]


def _clouds(rng: np.random.Generator, others: list[CutOut]) -> NDArray[np.float64]:
    """Noise of several wavelengths between two colours."""
    total = np.zeros((SIDE, SIDE))
    for cells in (2, 4, 8, 16, 32):
        coarse = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32))
        total += np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / cells**0.7
    total = (total - total.min()) / (np.ptp(total) + 1e-9)
    one, two = rng.uniform(0, 255, (2, 3))
    return one + (two - one) * total[..., None]  # type: ignore[no-any-return]


def _texture(rng: np.random.Generator, others: list[CutOut]) -> NDArray[np.float64]:
    """Stripes, squares or bricks of two colours, blurred a little."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)
    angle = rng.uniform(0, np.pi)
    u = np.cos(angle) * x + np.sin(angle) * y
    v = -np.sin(angle) * x + np.cos(angle) * y
    period = rng.uniform(8, 40)
    ways = (
        np.sin(2 * np.pi * u / period),
        np.sin(2 * np.pi * u / period) * np.sin(2 * np.pi * v / period),
        np.sign(np.sin(2 * np.pi * u / period)),
        np.sign(np.sin(2 * np.pi * u / period) * np.sin(2 * np.pi * v / period)),
    )
    wave = (ways[int(rng.integers(len(ways)))] + 1) / 2
    one = rng.uniform(0, 255, 3)
    two = one + rng.uniform(-90, 90, 3)
    return one + (two - one) * wave[..., None]  # type: ignore[no-any-return]


def _blurred(rng: np.random.Generator, others: list[CutOut]) -> NDArray[np.float64]:
    """Stamps of no class, enlarged, on a plain ground and blurred."""
    canvas = Image.new("RGB", (SIDE, SIDE), tuple(int(e) for e in rng.integers(0, 256, 3)))
    for _ in range(int(rng.integers(2, 6))):
        shape = others[int(rng.integers(len(others)))].picture
        factor = rng.uniform(100, 220) / max(shape.size)
        shape = shape.resize(
            (max(1, round(shape.width * factor)), max(1, round(shape.height * factor)))
        )
        place = rng.integers(-60, SIDE - 20, 2)
        canvas.paste(shape, (int(place[0]), int(place[1])), shape)
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(float(rng.uniform(3, 8)))), np.float64)


def _photograph(rng: np.random.Generator, others: list[CutOut]) -> NDArray[np.float64]:
    """A crop of a photographed stamp of no class that fills it: coats, leaves, cloth, stone."""
    for _ in range(20):
        shape = others[int(rng.integers(len(others)))].picture
        wide = int(rng.integers(40, 90))
        if min(shape.size) <= wide:
            continue
        left = int(rng.integers(0, shape.width - wide))
        top = int(rng.integers(0, shape.height - wide))
        crop = shape.crop((left, top, left + wide, top + wide))
        if np.asarray(crop.getchannel("A")).mean() > 245:
            sharp = crop.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            return np.asarray(sharp, np.float64)
    return _clouds(rng, others)


if __name__ == "__main__":
    main()
