"""Tables of boxes: a row for each box, or a row for each picture with all boxes in it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Split
from groundup.data.reading.coco import corners_of, numbers_in
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.files import Record, read_file
from groundup.data.reading.marked_pictures import Corners, Marked, MarkedBox, MarkedPicture
from groundup.data.reading.picture_index import PictureIndex, look_up
from groundup.data.reading.placement import group_of
from groundup.data.reading.split_column import split_of
from groundup.data.splitting.split_names import split_in_path

__all__ = ["LABELS", "BoxLayout", "TableColumns", "add_objects", "is_box_table", "read_box_table"]

BoxLayout = Literal["xyxy", "xywh", "cxcywh"]
# Spellings of public data sets, the plainest first: where a table has several, that one is read.
_FILE = (
    "file_name",
    "filename",
    "file",
    "image",
    "image_path",
    "image_name",
    "img",
    "path",
    "image_id",
    "imageid",
)
LABELS = ("label", "class", "class_name", "category", "name", "labelname", "label_name")
_BOX = ("bbox", "box", "boxes")
_CORNERS = (
    ("xmin", "x_min", "x1", "left", "bbox_xmin"),
    ("ymin", "y_min", "y1", "top", "bbox_ymin"),
    ("xmax", "x_max", "x2", "right", "bbox_xmax"),
    ("ymax", "y_max", "y2", "bottom", "bbox_ymax"),
)
# Width and height come last here: next to xmax, these are of the picture, and not of the box.
_SIZES = (
    ("x", "bbox_x", *_CORNERS[0]),
    ("y", "bbox_y", *_CORNERS[1]),
    ("w", "bbox_width", "box_width", "width"),
    ("h", "bbox_height", "box_height", "height"),
)
_CROWD = ("iscrowd", "is_crowd", "crowd", "isgroupof")
_AREA = ("area",)
_OBJECTS = ("objects", "annotations", "boxes")
_NO_BOX = (None, "")
_FIX = "Correct it, or remove it"


class TableColumns(NamedTuple):
    """Columns that say something of a picture.

    Attributes:
        split: By which rows are of several splits; None: none.
        group: What pictures belong to; None: none.
    """

    split: str | None = None
    group: str | None = None


def is_box_table(file: DataFile) -> bool:
    """Return whether the first row of a table has the columns of boxes."""
    try:
        first = next(iter(read_file(file)), None)
    except DataError:
        return False
    if first is None or _find(first.fields, _FILE) is None:
        return False
    return _find(first.fields, _OBJECTS) is not None or _way_of(first.fields) is not None


def read_box_table(
    file: DataFile,
    index: PictureIndex,
    found: Marked,
    split: Split | None,
    *,
    layout: BoxLayout | None,
    shares: bool,
    columns: TableColumns,
) -> None:
    """Add the pictures and boxes of a table.

    Args:
        file: The table.
        index: The pictures that it may name.
        found: What is added to.
        split: The split that all of them are of, where that is known.
        layout: What four numbers in one cell are; None: x, y, width, height.
        shares: Boxes are in shares of the width and height.
        columns: What says the split and the group of a picture.

    Raises:
        DataError: If a column is missing, a row has no group, or the file cannot be read.
    """
    # A picture has a row for each box, and these need not follow each other.
    pictures: dict[str, MarkedPicture | None] = {}
    for record in read_file(file):
        row = record.fields
        name = _require(row, _FILE, "the picture", record.origin)
        key = str(row[name])
        side, group = _read_columns(row, columns, record.origin)
        if key not in pictures:
            stored = look_up(key, record.origin, file, index, found, side or split)
            pictures[key] = None
            if stored is not None:
                pictures[key] = MarkedPicture(
                    stored.relative,
                    stored.path,
                    record.origin,
                    split=side or split or split_in_path(stored.relative),
                    shares=shares,
                    group=group,
                )
        picture = pictures[key]
        if picture is None:
            continue
        if group != picture.group or side not in (None, picture.split):
            what = "group" if group != picture.group else "split"
            before, now = {
                "group": (picture.group, group),
                "split": (picture.split, side),
            }[what]
            found.complain(
                f"pictures with rows of several {what}s",
                record.origin,
                f"the {what} of {key} is {now}, but {before} in {picture.where}",
                "Give all rows of a picture the same",
                picture,
            )
            continue
        _add_row(record, picture, found, layout)
    found.pictures += [picture for picture in pictures.values() if picture is not None]
    found.files[file.relative] = file.path


def _add_row(
    record: Record, picture: MarkedPicture, found: Marked, layout: BoxLayout | None
) -> None:
    """Add the box, or boxes, of a row; one without any numbers says that nothing is there."""
    row = record.fields
    objects = _find(row, _OBJECTS)
    if objects is not None and isinstance(row[objects], Mapping | list):
        add_objects(row[objects], {}, picture, found, layout, record.origin)
        return
    way = _way_of(row)
    if way is None:
        raise DataError(
            record.origin,
            f"there are no columns of a box; columns: {', '.join(row)}",
            "Name them xmin, ymin, xmax, ymax, or bbox",
        )
    columns, kind = way
    # As RetinaNet's tables say that nothing is in a picture.
    cells = [row[column] for column in columns]
    if all(cell in _NO_BOX for cell in cells):
        return
    values = _four_numbers(cells)
    label = row[_require(row, LABELS, "the class", record.origin)]
    if values is None or label in _NO_BOX:
        shown = ", ".join(f"{column} {row[column]!r}" for column in columns)
        problem = f"has no four numbers: {shown[:80]}"
        if values is not None:
            problem = "has no class"
        found.complain("boxes that cannot be read", record.origin, problem, _FIX, picture)
        return
    corners = corners_of(values, layout or "xywh" if kind == "cell" else kind)
    crowd = _flag(row, _CROWD)
    picture.boxes.append(MarkedBox(corners, str(label), record.origin, crowd, _area_in(row)))


def add_objects(
    objects: Any,
    names: Mapping[str, Sequence[str]],
    picture: MarkedPicture,
    found: Marked,
    layout: BoxLayout | None,
    where: str,
) -> None:
    """Add the boxes of a picture that are in one cell: lists by name, as Hugging Face's data sets
    have them, or a list of objects.

    Args:
        objects: The cell.
        names: The names of classes that are numbers, by the key they are under.
        picture: What is added to.
        found: Told of what cannot be read.
        layout: What four numbers are; None: x, y, width, height.
        where: The row, for messages.
    """
    rows = objects
    if isinstance(objects, Mapping):
        lists = {key: value for key, value in objects.items() if isinstance(value, list)}
        count = max(map(len, lists.values()), default=0)
        # Lists of other lengths would give one box the class of another.
        uneven = {key: len(value) for key, value in lists.items() if len(value) != count}
        if uneven:
            key, length = next(iter(uneven.items()))
            problem = f"{key} has {length} values, but there are {count} objects"
            found.complain("boxes that cannot be read", where, problem, "Correct the row", picture)
            return
        rows = [{key: value[n] for key, value in lists.items()} for n in range(count)]
    for number, row in enumerate(rows, 1):
        place = f"{where} object {number}"
        if not isinstance(row, Mapping):
            problem = f"is {str(row)[:40]!r}; allowed: an object"
            found.complain("boxes that cannot be read", place, problem, _FIX, picture)
            continue
        box = _find(row, _BOX)
        label = _find(row, (*LABELS, "categories", "labels", "category_id", "class_id"))
        values = numbers_in(row[box]) if box is not None else None
        if values is None or label is None or row[label] is None:
            problem = f"has no bbox of four numbers and a category: {str(dict(row))[:80]}"
            found.complain("boxes that cannot be read", place, problem, _FIX, picture)
            continue
        # Numbers of classes mean nothing outside of their data set, and names do.
        name = row[label]
        known = names.get(label, ())
        if known and isinstance(name, int):
            if not 0 <= name < len(known):
                problem = f"{label} is {name}, but there are {len(known)} classes"
                kind = "boxes with a class id that no category has"
                found.complain(kind, place, problem, _FIX, picture)
                continue
            name = known[name]
        picture.boxes.append(
            MarkedBox(
                corners_of(values, layout or "xywh"),
                str(name),
                place,
                _flag(row, _CROWD),
                _area_in(row),
            )
        )


def _way_of(row: Mapping[str, Any]) -> tuple[list[str], str] | None:
    """Return the columns of a box, and what they are: ``xyxy``, ``xywh``, or one ``cell``."""
    # Corners first, since tables with corners often have the size of the picture as well.
    for groups, kind in ((_CORNERS, "xyxy"), (_SIZES, "xywh")):
        columns = [_find(row, names) for names in groups]
        there = [column for column in columns if column is not None]
        if len(there) == 4:
            return there, kind
    cell = _find(row, _BOX)
    return None if cell is None else ([cell], "cell")


def _four_numbers(cells: Sequence[Any]) -> Corners | None:
    """Return the numbers of four cells, or of one such as ``[1, 2, 3, 4]``."""
    given: Any = list(cells)
    if len(given) == 1:
        given = given[0]
        if isinstance(given, str):
            try:
                given = json.loads(given.replace("(", "[").replace(")", "]"))
            except ValueError:
                given = given.strip("[]() ").replace(",", " ").split()
    if not isinstance(given, Iterable) or isinstance(given, str):
        return None
    try:
        return numbers_in([float(value) for value in given])
    except (TypeError, ValueError):
        return None


def _find(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the column that has one of these names, the first name first, in any case."""
    known = {str(column).strip().lower(): column for column in row}
    return next((known[name] for name in names if name in known), None)


def _require(row: Mapping[str, Any], names: Sequence[str], what: str, where: str) -> str:
    found = _find(row, names)
    if found is None:
        raise DataError(
            where,
            f"no column says {what}; {did_you_mean(names[0], row)}columns: {', '.join(row)}",
            f"Name it {names[0]}",
        )
    return found


def _read_columns(
    row: Mapping[str, Any], columns: TableColumns, where: str
) -> tuple[Split | None, str | None]:
    """Return the split and the group that a row says."""
    side = group = None
    if columns.split is not None:
        side = split_of(columns.split, row.get(columns.split))
    if columns.group is not None:
        if columns.group not in row:
            hint = did_you_mean(columns.group, row)
            problem = f"there is no column {columns.group!r}; {hint}columns: {', '.join(row)}"
            raise DataError(where, problem, "Correct data.group_column")
        group = group_of(row[columns.group], where, columns.group)
    return side, group


def _flag(row: Mapping[str, Any], names: Sequence[str]) -> bool:
    column = _find(row, names)
    return column is not None and str(row[column]).strip().lower() in ("1", "1.0", "true", "yes")


def _area_in(row: Mapping[str, Any]) -> float | None:
    """Return the area of the outline, or None where a row states none."""
    column = _find(row, _AREA)
    try:
        area = float(row[column]) if column is not None else 0.0
    except (TypeError, ValueError):
        return None
    return area if area > 0 and math.isfinite(area) else None
