"""YOLO's texts: a file of lines ``class cx cy w h`` for each picture, in shares of its size.

``labels/1.txt`` belongs to ``images/1.jpg``, or a text to the picture next to it. The names of the
classes are in ``data.yaml``, ``classes.txt`` or ``obj.names``; splits are folders or lists of
pictures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from groundup.core.errors import DataError
from groundup.core.values import Split
from groundup.data.reading.coco import corners_of
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.marked_pictures import Corners, Marked, MarkedBox, MarkedPicture
from groundup.data.reading.picture_index import PictureIndex
from groundup.data.reading.yolo_lists import NamedList, find_lists, plain_path, read_lists
from groundup.data.splitting.split_names import split_in_path, split_word

__all__ = ["is_class_list", "is_yolo_yaml", "pair_with_pictures", "read_yolo"]

_NAMES = ("classes.txt", "obj.names", "labels.txt")
_LINE = re.compile(r"\s*\d+(\s+[-+.\deE]+){4,}\s*")
_FIX = "Correct the line, or remove it"


def is_yolo_yaml(path: Path) -> bool:
    """Return whether a YAML file names classes and splits, as YOLO's do."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return re.search(r"(?m)^names\s*:", text) is not None


def is_class_list(file: DataFile) -> bool:
    """Return whether a text is called like a list of classes."""
    return PurePosixPath(file.relative).name.lower() in _NAMES


def pair_with_pictures(
    texts: Sequence[DataFile], pictures: Sequence[DataFile]
) -> dict[str, DataFile]:
    """Return the texts that are labels, by the names of the pictures that they are of; none, where
    no text reads like one."""
    # Without suffixes, because a picture may be .jpg, .png or whatever.
    by_stem = {file.relative.rpartition(".")[0]: file for file in texts}
    found = {}
    for picture in pictures:
        stem = picture.relative.rpartition(".")[0]
        # The last folder called images, as YOLO itself looks for it.
        head, slash, tail = f"/{stem}".rpartition("/images/")
        beside = f"{head}/labels/{tail}"[1:] if slash else stem
        text = by_stem.get(beside) or by_stem.get(stem)
        if text is not None:
            found[picture.relative] = text
    # Captions and read-mes are next to pictures too: one line with numbers tells.
    if any(_LINE.fullmatch(line) for text in found.values() for line in _first_line(text)):
        return found
    return {}


def _first_line(file: DataFile) -> list[str]:
    with file.path.open(encoding="utf-8", errors="replace") as handle:
        line = handle.readline()
    return [line.strip()] if line.strip() else []


def read_yolo(
    pictures: Sequence[DataFile],
    labels: Mapping[str, DataFile],
    abouts: Sequence[DataFile],
    found: Marked,
    *,
    shares: bool,
    texts: Sequence[DataFile] = (),
) -> None:
    """Add the pictures with their boxes; one without a text is one in which nothing is.

    Args:
        pictures: The pictures.
        labels: Their texts, by the names of the pictures.
        abouts: Files that name the classes, and folders of splits.
        found: What is added to.
        shares: Boxes are in shares of the width and height, as YOLO has them, or in pixels.
        texts: Other texts, among which there may be lists of pictures.

    Raises:
        DataError: If a file that names classes cannot be read, or names a list that is not there.
    """
    names, splits, named = _read_abouts(abouts, found)
    lists = find_lists(named, texts, folders=bool(splits))
    listed = read_lists(lists, PictureIndex(pictures), found)
    # Classes are numbered by their place in the list, and so without holes.
    found.classes |= {str(number): name for number, name in enumerate(names)}
    for file in pictures:
        text = labels.get(file.relative)
        split = listed.get(file.relative) or _split_of(file, splits, by_name=not lists)
        if lists and split is None:
            found.left_out["pictures in no list of a split"] += 1
            if text is not None:
                found.files[text.relative] = text.path
            continue
        where = str(text.path if text is not None else file.path)
        picture = MarkedPicture(file.relative, file.path, where, split=split, shares=shares)
        if text is None:
            found.notes["pictures without a file of boxes, in which nothing is"] += 1
        else:
            found.files[text.relative] = text.path
            _read_lines(text, picture, names, found)
        found.pictures.append(picture)
    # A folder called test is one only next to one called train.
    if not any(picture.split == "train" for picture in found.pictures):
        for picture in found.pictures:
            picture.split = None
    if not names:
        found.warnings.append(
            "no file names the classes, and so they are called by their numbers: add a data.yaml"
            " with names, or a classes.txt with a name a line"
        )


def _read_abouts(
    abouts: Sequence[DataFile], found: Marked
) -> tuple[list[str], dict[str, Split], list[NamedList]]:
    """Return the names of classes in the order of their numbers, the splits of folders, and what
    lists of pictures are named."""
    names: list[str] = []
    splits: dict[str, Split] = {}
    lists: list[NamedList] = []
    # YAML says more than a list, and comes first.
    for file in sorted(abouts, key=lambda each: each.kind == ".txt"):
        if file.kind == ".txt" or file.path.suffix == ".names":
            lines = file.path.read_text(encoding="utf-8").splitlines()
            own = [line.strip() for line in lines if line.strip()]
        else:
            content = _read_yaml(file)
            own = _names_in(content.get("names"), file)
            for path, split in _paths_in(content):
                if path.endswith(".txt"):
                    lists.append(NamedList(path, split, str(file.path)))
                else:
                    splits[plain_path(path)] = split
        if names and own and own != names:
            raise DataError(
                str(file.path),
                f"names other classes than another file: {own[:3]}, but {names[:3]}",
                "Keep one of them",
            )
        names = names or own
        found.files[file.relative] = file.path
    return names, splits, lists


def _read_yaml(file: DataFile) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(file.path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(str(file.path), f"is not YAML: {reason}", "Correct it") from None
    return content if isinstance(content, Mapping) else {}


def _names_in(value: Any, file: DataFile) -> list[str]:
    if isinstance(value, list):
        return [str(each) for each in value]
    if isinstance(value, Mapping) and sorted(value) == list(range(len(value))):
        return [str(value[number]) for number in range(len(value))]
    raise DataError(
        str(file.path),
        f"names is {str(value)[:60]}; allowed: a list, or numbers from 0 with a name each",
        "Correct it",
    )


def _paths_in(content: Mapping[str, Any]) -> Iterator[tuple[str, Split]]:
    """Yield which folder, or list of pictures, is which split, as YAML says."""
    for key, value in content.items():
        split = split_word(key)
        for path in value if isinstance(value, list) else [value]:
            if split is not None and isinstance(path, str):
                yield path, split


def _split_of(file: DataFile, splits: Mapping[str, Split], *, by_name: bool) -> Split | None:
    folder = file.relative.rpartition("/")[0]
    for name, split in splits.items():
        within = f"{folder}/".startswith(f"{name}/")
        # A path of another machine ends with folders that are here.
        if name and (within or (folder and name.endswith(f"/{folder}"))):
            return split
    return split_in_path(file.relative) if by_name else None


def _read_lines(
    text: DataFile, picture: MarkedPicture, names: Sequence[str], found: Marked
) -> None:
    lines = text.path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        where = f"{text.path} line {number}"
        corners = _corners_in(words, found)
        if corners is None or not words[0].isdigit():
            found.complain(
                "boxes that cannot be read",
                where,
                f"is {line.strip()[:60]!r}; allowed: class cx cy w h, or class and a polygon's x y"
                " ...",
                _FIX,
                picture,
            )
            continue
        label = int(words[0])
        if names and label >= len(names):
            found.complain(
                "boxes with a class id that no category has",
                where,
                f"the class is {label}, but {len(names)} are named, from 0 to {len(names) - 1}",
                "Correct it, or name the class",
                picture,
            )
            continue
        name = names[label] if names else str(label)
        picture.boxes.append(MarkedBox(corners, name, where))


def _corners_in(words: Sequence[str], found: Marked) -> Corners | None:
    try:
        values = [float(word) for word in words[1:]]
    except ValueError:
        return None
    if not all(map(math.isfinite, values)):
        return None
    if len(values) == 4:
        return corners_of((values[0], values[1], values[2], values[3]), "cxcywh")
    # Three points at least; five numbers are a box with the certainty of a prediction.
    if len(values) < 6 or len(values) % 2:
        return None
    found.notes["boxes made of polygons, as there is no box"] += 1
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
