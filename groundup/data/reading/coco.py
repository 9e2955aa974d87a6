"""COCO's JSON: a list of pictures, a list of boxes and a list of classes in one file.

Source: Lin et al., 2014, "Microsoft COCO: Common objects in context" (arXiv:1405.0312), and the
format of its annotations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError
from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile, open_file
from groundup.data.reading.encodings import decode_text
from groundup.data.reading.json_text import parse_json, type_name
from groundup.data.reading.marked_pictures import Corners, Marked, MarkedBox, MarkedPicture
from groundup.data.reading.picture_index import PictureIndex, look_up
from groundup.data.reading.run_lengths import read_region

__all__ = ["corners_of", "is_coco", "numbers_in", "read_coco"]

# Others, such as info and licenses, say nothing of boxes.
_LISTS = ("images", "annotations", "categories")
_CORRECT = "Correct it, or remove it"


def is_coco(path: Path) -> bool:
    """Return whether a JSON file looks like COCO's, by the names of its lists."""
    # By the text alone: parsing takes half a minute where there are a million boxes, and is done
    # once, by who reads it.
    content = path.read_bytes()
    return content.lstrip()[:1] == b"{" and all(
        f'"{name}"'.encode() in content for name in ("images", "annotations")
    )


def read_coco(
    file: DataFile, index: PictureIndex, found: Marked, split: Split | None, *, shares: bool
) -> None:
    """Add the pictures and boxes of a file.

    Args:
        file: The file.
        index: The pictures that it may name.
        found: What is added to.
        split: The split that all of them are of, where that is known.
        shares: Boxes are in shares of the width and height.

    Raises:
        DataError: If it is no JSON, or lacks one of the lists.
    """
    with open_file(file) as handle:
        content = parse_json(decode_text(file, handle), str(file.path))
    lists = {name: _list_in(content, name, file.path) for name in _LISTS}
    # Classes first, and then pictures: annotations name both by number, in any order.
    names = _read_classes(lists["categories"], file, found)
    pictures = _read_pictures(lists["images"], file, index, found, split)
    for picture in pictures.values():
        if picture is not None:
            picture.shares = shares
    _read_boxes(lists["annotations"], file, names, pictures, found)
    found.pictures += [picture for picture in pictures.values() if picture is not None]
    found.files[file.relative] = file.path


def _list_in(content: Any, name: str, path: Path) -> list[Any]:
    value = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(value, list):
        there = ", ".join(map(str, content)) if isinstance(content, Mapping) else type_name(content)
        raise DataError(
            str(path),
            f"has no list {name!r}; allowed: {', '.join(_LISTS)}; there: {there}",
            "Export it as COCO's annotations of instances",
        )
    return value


def _read_classes(rows: Sequence[Any], file: DataFile, found: Marked) -> dict[Any, str]:
    """Return the names of classes by their numbers in the file."""
    names: dict[Any, str] = {}
    for number, row in enumerate(rows, 1):
        where = f"{file.path} categories {number}"
        if not isinstance(row, Mapping) or not isinstance(row.get("name"), str) or "id" not in row:
            raise DataError(where, "has no id and name; allowed: both", "Correct the class")
        if row["id"] in names:
            raise DataError(
                where,
                f"the id {row['id']} is that of {names[row['id']]!r} as well",
                "Give each class an id of its own",
            )
        names[row["id"]] = row["name"]
    # Programs that merge data sets leave one name with two numbers.
    repeated = [name for name, count in Counter(names.values()).items() if count > 1]
    if repeated:
        found.warnings.append(
            f"{file.relative}: several ids have the same name, and are one class:"
            f" {', '.join(repeated)}"
        )
    found.classes |= {str(number): name for number, name in sorted(names.items(), key=_by_number)}
    return names


def _by_number(item: tuple[Any, str]) -> tuple[bool, float, str]:
    number = item[0]
    if isinstance(number, int | float):
        return False, float(number), ""
    return True, 0.0, str(number)


def _read_pictures(
    rows: Sequence[Any], file: DataFile, index: PictureIndex, found: Marked, split: Split | None
) -> dict[Any, MarkedPicture | None]:
    """Return the pictures by their numbers in the file; None for one that cannot be used."""
    pictures: dict[Any, MarkedPicture | None] = {}
    named: set[str] = set()
    for number, row in enumerate(rows, 1):
        where = f"{file.path} images {number}"
        if not isinstance(row, Mapping) or not isinstance(row.get("file_name"), str):
            problem = f"has no file_name: {str(row)[:60]}"
            found.complain("pictures without a name", where, problem, _CORRECT)
            continue
        where = f"{where} (id {row.get('id')}, {row['file_name']})"
        identity = row.get("id")
        if identity is None or identity in pictures:
            problem = "has no id" if identity is None else f"the id {identity} is there twice"
            remedy = "Give each picture an id of its own"
            found.complain("pictures with an id that is there twice", where, problem, remedy)
            continue
        # Known from here on, so that boxes of a picture that is missing are not a second complaint.
        pictures[identity] = None
        stored = look_up(row["file_name"], where, file, index, found, split)
        if stored is None:
            continue
        if stored.relative in named:
            problem = f"{stored.relative} is named by another row already"
            found.complain("pictures named twice", where, problem, "Remove one of the rows")
            continue
        named.add(stored.relative)
        # What the size was when the boxes were drawn: pictures may have been resized since.
        width, height = row.get("width"), row.get("height")
        size = None
        if isinstance(width, int | float) and isinstance(height, int | float):
            size = (float(width), float(height))
        pictures[identity] = MarkedPicture(
            stored.relative, stored.path, where, split=split, size=size
        )
    return pictures


def _read_boxes(
    rows: Sequence[Any],
    file: DataFile,
    names: Mapping[Any, str],
    pictures: Mapping[Any, MarkedPicture | None],
    found: Marked,
) -> None:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            found.complain(
                "boxes that cannot be read",
                f"{file.path} annotations {number}",
                f"is {type_name(row)}; allowed: an object",
                _CORRECT,
            )
            continue
        where = f"{file.path} annotations {number} (id {row.get('id')})"
        identity = row.get("image_id")
        if identity not in pictures:
            problem = f"image_id {identity!r} is that of no picture"
            found.complain("boxes of pictures that are not listed", where, problem, _CORRECT)
            continue
        picture = pictures[identity]
        if picture is None:
            continue  # it has been said why it cannot be used
        if row.get("category_id") not in names:
            known = ", ".join(f"{each} ({name})" for each, name in list(names.items())[:8])
            found.complain(
                "boxes with a class id that no category has",
                where,
                f"category_id {row.get('category_id')!r} is that of no category; there: {known}",
                "Correct it, or add the category",
                picture,
            )
            continue
        if (corners := _corners_in(row, where, picture, found)) is not None:
            label = names[row["category_id"]]
            box = MarkedBox(corners, label, where, bool(row.get("iscrowd")), _area_of(row))
            picture.boxes.append(box)


def _corners_in(
    row: Mapping[str, Any], where: str, picture: MarkedPicture, found: Marked
) -> Corners | None:
    """Return the corners of an annotation's box, of its polygons where it has none; or None after
    noting what is wrong."""
    if row.get("bbox"):
        values = numbers_in(row["bbox"])
        if values is None:
            found.complain(
                "boxes that cannot be read",
                where,
                f"bbox is {str(row['bbox'])[:60]}; allowed: four numbers, x, y, width, height",
                _CORRECT,
                picture,
            )
            return None
        return corners_of(values, "xywh")
    if isinstance(row.get("segmentation"), Mapping):
        return _corners_of_region(row["segmentation"], where, picture, found)
    # Outlines alone, as some programs export them: the box around all their points.
    points = [point for polygon in _polygons(row) for point in polygon]
    if not points:
        remedy = "Add the bbox, or remove it"
        found.complain("boxes that cannot be read", where, "has no bbox", remedy, picture)
        return None
    found.notes["boxes made of polygons, as there is no bbox"] += 1
    across, down = zip(*points, strict=True)
    return min(across), min(down), max(across), max(down)


def _corners_of_region(
    segmentation: Mapping[str, Any], where: str, picture: MarkedPicture, found: Marked
) -> Corners | None:
    """Return the corners around an outline of run lengths, or None after noting what is wrong."""
    problem = ""
    try:
        region = read_region(segmentation)
        height, width = region.size
        if picture.size not in (None, (width, height)):
            problem = f"is of {height} x {width} pixels, but the picture has other ones"
    except ValueError as error:
        problem = str(error)
    if problem:
        words = f"has no bbox, and its outline of run lengths cannot be read: {problem}"
        remedy = "Add the bbox, or remove it"
        found.complain("boxes that cannot be read", where, words, remedy, picture)
        return None
    found.notes["boxes made of run lengths, as there is no bbox"] += 1
    return region.corners


def _polygons(row: Mapping[str, Any]) -> list[list[tuple[float, float]]]:
    """Return the polygons of an annotation, as their points; without those that are none."""
    given = row.get("segmentation")
    found = []
    for polygon in given if isinstance(given, list) else ():
        # Three points at least; two are a line, which has no area.
        plain = isinstance(polygon, list) and all(isinstance(v, int | float) for v in polygon)
        if plain and len(polygon) >= 6 and len(polygon) % 2 == 0:
            found.append(list(zip(polygon[::2], polygon[1::2], strict=True)))
    return found


def _area_of(row: Mapping[str, Any]) -> float | None:
    """Return the area that an annotation states, else that within its outline; None where it has
    neither. Some programs write 0 where they know none."""
    given = row.get("area")
    if isinstance(given, int | float) and given > 0:
        return float(given)
    total = 0.0
    if isinstance(row.get("segmentation"), Mapping):
        with suppress(ValueError):
            total = float(read_region(row["segmentation"]).area)
    for points in _polygons(row):
        # The shoelace formula; an outline may run either way round.
        following = points[1:] + points[:1]
        twice = sum(x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True))
        total += abs(twice) / 2
    return total or None


def numbers_in(value: Any) -> tuple[float, float, float, float] | None:
    """Return four finite numbers, or None where it is something else."""
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    # true is a number to Python.
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in value):
        return None
    first, second, third, fourth = map(float, value)
    if not all(map(math.isfinite, (first, second, third, fourth))):
        return None
    return first, second, third, fourth


def corners_of(values: Corners, layout: str) -> Corners:
    """Return the corners of a box that is given as ``xyxy``, ``xywh`` or ``cxcywh``."""
    first, second, third, fourth = values
    if layout == "xywh":
        return first, second, first + third, second + fourth
    if layout == "cxcywh":
        return first - third / 2, second - fourth / 2, first + third / 2, second + fourth / 2
    return values
