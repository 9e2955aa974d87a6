"""Boxes of a Hugging Face data set: a column of pictures, and one of the objects in each."""

from __future__ import annotations

from groundup.core.errors import DataError
from groundup.data.reading.box_tables import BoxLayout, add_objects
from groundup.data.reading.hub import HubTable
from groundup.data.reading.hub_splits import HubOrigin, file_column
from groundup.data.reading.marked_pictures import Marked, MarkedPicture

__all__ = ["read_hub_boxes"]

_OBJECTS = ("objects", "annotations", "labels", "boxes")


def read_hub_boxes(
    hub: HubOrigin,
    image: str | None,
    objects: str | None,
    *,
    layout: BoxLayout | None,
    shares: bool,
) -> Marked:
    """Return the pictures of all splits with their boxes, none of them read.

    Args:
        hub: The data set.
        image: The column of the pictures; None: the only one.
        objects: The column of what is in them; None: ``objects``, or the like.
        layout: What four numbers are; None: x, y, width, height.
        shares: Boxes are in shares of the width and height.

    Raises:
        DataError: If a column is missing.
    """
    found = Marked("a data set's column of objects, with bbox and category")
    for split, name in hub.names().items():
        table = hub.table(name)
        column = file_column(table, "image", image)
        boxes = _objects_column(table, objects)
        names = table.names_within(boxes)
        for classes in names.values():
            found.classes |= {str(number): each for number, each in enumerate(classes)}
        # The column of objects alone: rows would bring every picture with them.
        for number, value in enumerate(table.values(boxes)):
            where = table.origin(number)
            picture = MarkedPicture(
                f"{table.split}:{number + 1}",
                table.file(column, number),
                where,
                split=split,
                shares=shares,
            )
            if value is not None:
                add_objects(value, names, picture, found, layout, where)
            found.pictures.append(picture)
    return found


def _objects_column(table: HubTable, named: str | None) -> str:
    there = [named] if named is not None else list(_OBJECTS)
    column = next((name for name in there if table.columns.get(name) == "nested"), None)
    if column is None:
        kinds = ", ".join(f"{name} ({kind})" for name, kind in table.columns.items())
        raise DataError(
            table.where,
            f"no column called {' or '.join(there)} holds objects with bbox and category; columns:"
            f" {kinds}",
            "Name it as data.objects_column",
        )
    return column
