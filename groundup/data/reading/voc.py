"""Pascal VOC's XML: a file of boxes for each picture, and lists of which are of which split.

Source: Everingham et al., 2010, "The Pascal visual object classes (VOC) challenge", and its
development kit, which counts pixels from 1, both ends included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from groundup.core.errors import DataError
from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.marked_pictures import Corners, Marked, MarkedBox, MarkedPicture
from groundup.data.reading.picture_index import PictureIndex, look_up
from groundup.data.reading.safe_xml import read_tree
from groundup.data.splitting.split_names import split_word

__all__ = ["Difficult", "is_voc", "read_voc", "splits_in_lists"]

Difficult = Literal["ignore", "keep", "skip"]
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_HEAD = 4096
_FIX = "Correct it, or remove it"


def is_voc(path: Path) -> bool:
    """Return whether an XML file begins like one of VOC's annotations."""
    with path.open("rb") as handle:
        return b"<annotation" in handle.read(_HEAD)


def read_voc(
    files: Sequence[DataFile],
    index: PictureIndex,
    found: Marked,
    splits: dict[str, Split | None],
    *,
    difficult: Difficult,
    shares: bool,
) -> None:
    """Add the pictures and boxes of files, one for each picture.

    Args:
        files: The files.
        index: The pictures that they may be of.
        found: What is added to.
        splits: Of each file, by its name below the root.
        difficult: What becomes of things that are hard to see: they are neither right nor wrong,
            as in VOC's own evaluation, are things like others, or are left out.
        shares: Boxes are in shares of the width and height.

    Raises:
        MissingExtraError: If defusedxml is not installed.
        DataError: If a file is no XML or declares entities.
    """
    # All files first: from where pixels are counted is told by the smallest number of all.
    begin = len(found.pictures)
    for file in files:
        picture = _read_file(file, index, found, splits[file.relative], difficult)
        if picture is not None:
            picture.shares = shares
            found.pictures.append(picture)
        found.files[file.relative] = file.path
    own = found.pictures[begin:]
    if not shares:
        _count_from_zero(own, found)


def _count_from_zero(pictures: Sequence[MarkedPicture], found: Marked) -> None:
    """Let pixels be counted from the corner of the first one, as everywhere else; they are already
    where one of the boxes begins at 0, as some programs write."""
    starts = [min(box.corners[:2]) for picture in pictures for box in picture.boxes]
    if any(start <= 0 for start in starts):
        found.notes["boxes taken as counted from 0, as one of them begins there"] += len(starts)
        return
    for picture in pictures:
        moved = []
        for box in picture.boxes:
            left, top, right, bottom = box.corners
            moved.append(box._replace(corners=(left - 1, top - 1, right, bottom)))
        picture.boxes[:] = moved


def _read_file(
    file: DataFile,
    index: PictureIndex,
    found: Marked,
    split: Split | None,
    difficult: Difficult,
) -> MarkedPicture | None:
    root = read_tree(file, "classic")
    if root is None or root.tag != "annotation":
        raise DataError(
            str(file.path),
            f"begins with <{'nothing' if root is None else root.tag}>; allowed: <annotation>",
            "Export it as Pascal VOC",
        )
    stored = _find_picture(root, file, index, found, split)
    if stored is None:
        return None
    picture = MarkedPicture(stored.relative, stored.path, str(file.path), split=split)
    width, height = (_number(root, f"size/{name}") for name in ("width", "height"))
    # Zeros are what programs write that did not look at the picture.
    if width and height:
        picture.size = (width, height)
    for number, thing in enumerate(root.findall("object"), 1):
        where = f"{file.path} object {number}"
        label = (thing.findtext("name") or "").strip()
        corners = _corners_in(thing)
        if not label or corners is None:
            problem = f"has no numbers {', '.join(_SIDES)} in bndbox"
            if not label:
                problem = "has no name"
            found.complain("boxes that cannot be read", where, problem, _FIX, picture)
            continue
        hard = (thing.findtext("difficult") or "0").strip() == "1"
        if hard and difficult == "skip":
            found.notes["difficult things left out"] += 1
            continue
        ignored = hard and difficult == "ignore"
        found.notes["difficult things, neither right nor wrong"] += ignored
        picture.boxes.append(MarkedBox(corners, label, where, ignored))
    return picture


def _find_picture(
    root: Any, file: DataFile, index: PictureIndex, found: Marked, split: Split | None
) -> DataFile | None:
    """Return the picture that a file names; or, as pictures are often renamed without it, the one
    that is called like it."""
    named = (root.findtext("filename") or "").strip()
    stem = PurePosixPath(file.relative).stem
    if not index.knows(named):
        alike = index.called(stem)
        if len(alike) == 1:
            found.notes["pictures found by the name of their file of boxes"] += 1
            return alike[0]
    return look_up(named or stem, str(file.path), file, index, found, split)


def _corners_in(thing: Any) -> Corners | None:
    values = [_number(thing, f"bndbox/{name}") for name in _SIDES]
    left, top, right, bottom = values
    if left is None or top is None or right is None or bottom is None:
        return None
    return left, top, right, bottom


def _number(element: Any, path: str) -> float | None:
    try:
        value = float(element.findtext(path) or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def splits_in_lists(lists: Sequence[DataFile], found: Marked) -> dict[str, Split]:
    """Return the split of pictures by their names without suffixes, as the lists in
    ``ImageSets/Main`` say; those of a single class, such as cat_train.txt, are not read."""
    named: dict[str, Split] = {}
    by_split: dict[Split, DataFile] = {}
    for file in lists:
        stem = PurePosixPath(file.relative).stem
        split = split_word(stem)
        if split is not None:
            by_split[split] = file
        elif stem == "trainval" and "train" not in by_split:
            by_split["train"] = replace(file)
    if "train" not in by_split:
        return {}
    for split, file in by_split.items():
        found.files[file.relative] = file.path
        for line in file.path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                named.setdefault(line.split()[0], split)
    return named
