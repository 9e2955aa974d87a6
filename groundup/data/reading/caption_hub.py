"""Pictures and captions in the rows of a Hugging Face data set."""

from __future__ import annotations

from typing import Any

from groundup.data.reading.captions import (
    CAPTION_COLUMNS,
    CaptionColumns,
    Captioned,
    Captions,
    captions_in,
    choose_column,
    group_in,
)
from groundup.data.reading.hub import HubTable
from groundup.data.reading.hub_splits import HubOrigin, file_column

__all__ = ["read_hub_captions"]


def read_hub_captions(
    hub: HubOrigin, columns: CaptionColumns
) -> tuple[Captions, str, dict[str, Any]]:
    """Return the pictures of all splits with their captions, none of which is read; a key that
    changes when a row does; and what a data card says of the data set.

    Raises:
        DataError: If a column is missing or cannot be found.
    """
    # Not hub.tables, which leaves out test splits without labels: there are none here.
    tables = {split: hub.table(name) for split, name in hub.names().items()}
    captions = Captions("")
    for split, table in tables.items():
        image, second, text = _columns(table, columns)
        texts = table.values(text) if text is not None else [None] * len(table)
        # A whole column at a time: row by row the library would decode every picture.
        groups: list[Any] = [""] * len(table)
        if columns.group is not None:
            choose_column(table.columns, columns.group, (), table.where, "group_column")
            groups = table.values(columns.group)
        captions.form = "a data set"
        if text is not None:
            captions.form = f"column {text!r} of a data set"
        for number, (value, group) in enumerate(zip(texts, groups, strict=True)):
            where = table.origin(number)
            one = Captioned(
                table.file(image, number),
                table.file(second, number) if second is not None else None,
                f"{table.split}:{number + 1}",
                None,
                where,
                split,
                group=group_in({columns.group or "": group}, columns.group, where),
            )
            written: list[str] | list[None] = [None]
            if text is not None:
                written = captions_in(value, where, f"column {text!r}")
            captions.add(one, written)
    key = "".join(table.key for table in tables.values())
    return captions, key, hub.about(tables)


def _columns(table: HubTable, columns: CaptionColumns) -> tuple[str, str | None, str | None]:
    """Return the columns of the picture, of the second one, and of the caption."""
    if columns.second is None:
        image = file_column(table, "image", columns.image)
        second = None
    else:
        second = file_column(table, "image", columns.second)
        # Of two columns of pictures the other one is meant.
        image = columns.image or ""
        if columns.image is None:
            kinds = table.columns
            others = [name for name in kinds if kinds[name] == "image" and name != second]
            image = others[0] if len(others) == 1 else ""
        image = file_column(table, "image", image or None)
    usual = any(name in table.columns for name in CAPTION_COLUMNS)
    if columns.second is not None and columns.text is None and not usual:
        return image, second, None
    text = choose_column(table.columns, columns.text, CAPTION_COLUMNS, table.where, "text_column")
    return image, second, text
