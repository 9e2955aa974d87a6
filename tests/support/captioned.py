"""Small sets of pictures with captions for tests, in every form that is read."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WORDS = ("a dark square", "一个 灰色 方块", "un carré clair", "a bright square, with a comma")


def shade(number: int, side: int = 6) -> Any:
    """Return a picture (side, side, 3) that no other number has."""
    return np.full((side, side, 3), 10 + 7 * number) + np.arange(side)[:, None, None]


def encoded(values: Any, kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of a picture file."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(values).round().astype(np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], **options: Any) -> Path:
    """Write files into an archive, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def write_captioned(
    root: Path, form: str, texts: Sequence[str] = WORDS, first: int = 0, folder: str = ""
) -> Path:
    """Write a picture for each caption, ``0000.png`` and so on from ``first``."""
    place = root / folder
    place.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04}" for number in range(first, first + len(texts))]
    pictures = [encoded(shade(int(name))) for name in names]
    if form == "webdataset":
        members = []
        for name, picture, text in zip(names, pictures, texts, strict=True):
            members += [(f"{name}.png", picture), (f"{name}.txt", text.encode())]
        write_tar(place / f"{folder or 'shard'}-000.tar", members)
        return root
    for name, picture in zip(names, pictures, strict=True):
        (place / f"{name}.png").write_bytes(picture)
    rows = [
        {"file_name": f"{name}.png", "text": text} for name, text in zip(names, texts, strict=True)
    ]
    if form == "text_files":
        for name, text in zip(names, texts, strict=True):
            (place / f"{name}.txt").write_text(f"{text}\n", encoding="utf-8")
    elif form == "jsonl":
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (place / "metadata.jsonl").write_text(lines, encoding="utf-8")
    else:
        with (place / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, ["file_name", "text"])
            table.writeheader()
            table.writerows(rows)
    return root
