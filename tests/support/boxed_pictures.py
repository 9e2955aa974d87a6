"""Small pictures with boxes, written in each of the formats that are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pictures import save

WIDTH, HEIGHT = 40, 30
# (left, top, right, bottom, class) of the boxes of each picture; the third has none.
BOXES: list[list[tuple[int, int, int, int, str]]] = [
    [(2, 3, 12, 15, "cat"), (20, 10, 36, 28, "dog")],
    [(0, 0, 40, 30, "dog")],
    [],
    [(5, 5, 9, 25, "cat")],
]
# As COCO's: with holes, and not in the order of the names.
IDS = {"dog": 3, "cat": 17}


def write_pictures(folder: Path, count: int = 4) -> list[str]:
    """Write pictures of noise with a bright rectangle for each box; return their names."""
    names = []
    for number in range(count):
        rng = np.random.default_rng(number)
        values = rng.integers(0, 60, (HEIGHT, WIDTH, 3))
        for left, top, right, bottom, _ in BOXES[number % len(BOXES)]:
            bright = rng.integers(190, 220, (bottom - top, right - left, 1))
            values[top:bottom, left:right] = bright
        name = f"{number}.png"
        save(folder / name, values)
        names.append(name)
    return names


def coco_content(names: list[str]) -> dict[str, Any]:
    """Return what COCO's JSON says of pictures."""
    content: dict[str, Any] = {
        "images": [
            {"id": 10 * n + 7, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for n, name in enumerate(names)
        ],
        "categories": [{"id": number, "name": name} for name, number in IDS.items()],
        "annotations": [],
    }
    for n in range(len(names)):
        for left, top, right, bottom, label in BOXES[n % len(BOXES)]:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": 10 * n + 7,
                    "category_id": IDS[label],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top) / 2,
                    "iscrowd": 0,
                }
            )
    return content


def write_coco(root: Path, count: int = 4, **changed: Any) -> Path:
    """Write pictures and COCO's JSON next to them; ``changed`` replaces keys of it."""
    content = coco_content(write_pictures(root, count)) | changed
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def voc_text(name: str, objects: list[tuple[Any, ...]], extra: str = "") -> str:
    """Return what Pascal VOC's XML says of a picture: pixels counted from 1, both ends included."""
    things = "".join(
        f"<object><name>{label}</name>{extra}<bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for left, top, right, bottom, label in objects
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{things}</annotation>"


def write_voc(root: Path, count: int = 4) -> Path:
    """Write pictures in JPEGImages, and an XML for each in Annotations."""
    (root / "Annotations").mkdir(parents=True)
    for number, name in enumerate(write_pictures(root / "JPEGImages", count)):
        text = voc_text(name, list(BOXES[number % len(BOXES)]))
        (root / "Annotations" / f"{Path(name).stem}.xml").write_text(text)
    return root


def yolo_line(box: tuple[int, int, int, int, str], numbers: dict[str, int]) -> str:
    """Return the line of a box: its class, middle and size, in shares."""
    left, top, right, bottom, label = box
    values = (
        (left + right) / 2 / WIDTH,
        (top + bottom) / 2 / HEIGHT,
        (right - left) / WIDTH,
        (bottom - top) / HEIGHT,
    )
    return f"{numbers[label]} " + " ".join(map(str, values))


def write_yolo(root: Path, count: int = 4) -> Path:
    """Write images/ and labels/, and data.yaml with the names of the classes."""
    (root / "labels").mkdir(parents=True)
    for number, name in enumerate(write_pictures(root / "images", count)):
        lines = [yolo_line(box, {"dog": 0, "cat": 1}) for box in BOXES[number % len(BOXES)]]
        (root / "labels" / f"{Path(name).stem}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("names: [dog, cat]\nnc: 2\n")
    return root


def write_table(root: Path, count: int = 4) -> Path:
    """Write pictures and boxes.csv, in which a picture without boxes has empty cells."""
    rows = ["file_name,xmin,ymin,xmax,ymax,label"]
    for number, name in enumerate(write_pictures(root, count)):
        boxes = BOXES[number % len(BOXES)]
        rows += [f"{name},{a},{b},{c},{d},{label}" for a, b, c, d, label in boxes]
        if not boxes:
            rows.append(f"{name},,,,,")
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")
    return root
