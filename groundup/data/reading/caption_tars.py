"""Captions in archives as WebDataset writes them: pictures, texts and JSON of one key are a
sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.core.errors import DataError
from groundup.data.reading.captions import (
    CAPTION_COLUMNS,
    CaptionColumns,
    Captioned,
    Captions,
    captions_in,
    choose_column,
    group_in,
)
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.json_text import parse_json, type_name
from groundup.data.reading.tar_members import TarMember, group_members, index_tar
from groundup.media.images import SUFFIXES

__all__ = ["read_tar"]


def read_tar(
    file: DataFile, columns: CaptionColumns, captions: Captions, on_unreadable: str
) -> None:
    """Add the samples of an archive, none of whose pictures is read.

    Args:
        file: The archive.
        columns: The parts of names that hold the pictures, such as ``jpg`` or ``left.png``; and of
            the caption: such as ``txt``, or a key of the JSON.
        captions: What they are added to.
        on_unreadable: ``skip`` takes what is whole of an archive that ends early.

    Raises:
        DataError: If the archive or a text in it cannot be read, or it is not clear which part of
            a sample is the picture.
    """
    captions.files[file.relative] = file.path
    index = index_tar(file.path)
    if index.problem and on_unreadable != "skip":
        raise DataError(
            str(file.path),
            index.problem,
            "Fetch or write it again, or set data.on_unreadable: skip to read what is whole",
        )
    if problem := index.problem or index.warning:
        captions.warnings.append(f"{file.relative}: {problem}")
    captions.unread.update(index.left_out)
    for key, parts in group_members(index.members).items():
        _add_sample(f"{file.relative}/{key}", file, parts, columns, captions)


def _add_sample(
    name: str,
    file: DataFile,
    parts: Mapping[str, TarMember],
    columns: CaptionColumns,
    captions: Captions,
) -> None:
    used: set[str] = set()
    picture = _picture(name, parts, columns, used)
    second = None
    if columns.second is not None:
        second = parts.get(columns.second)
        used.add(columns.second)
    row: Mapping[str, Any] = {}
    written = columns.text or "txt"
    # Parsing is slow: only where something is taken from it.
    if "json" in parts and (written not in parts or columns.group is not None):
        row = _read_json(parts["json"])
    origin, values = _texts(parts, row, columns, used)
    if row:
        used.add("json")
    captions.unread.update(f".{part}" for part in parts if part not in used)
    if picture is None or (columns.second is not None and second is None):
        captions.without_picture.append(f"{name} ({file.path})")
    elif values is None and columns.second is None:
        captions.without_caption.append(name)
    else:
        group = group_in(row, columns.group, f"{file.path}: {name}")
        # The archive's own name may be a split's, and not the folders in it.
        folder = file.relative.removesuffix(".tar")
        found = Captioned(picture, second, name, None, origin, folder=folder, group=group)
        texts = captions_in(values, origin, "the caption") if values is not None else [None]
        captions.add(found, texts)


def _picture(
    name: str, parts: Mapping[str, TarMember], columns: CaptionColumns, used: set[str]
) -> TarMember | None:
    """Return the picture of a sample: the part that is named, or the only one of its kind."""
    if columns.image is not None:
        used.add(columns.image)
        return parts.get(columns.image)
    # The end alone says the kind: of left.png it is .png.
    kinds = [part for part in parts if f".{part.rpartition('.')[2]}" in SUFFIXES]
    kinds = [part for part in kinds if part != columns.second]
    # Taking the first would train on masks or thumbnails without a word.
    if len(kinds) > 1:
        raise DataError(
            str(parts[kinds[0]].archive),
            f"the sample {name!r} has several pictures: {', '.join(kinds)}",
            "Name the one that is read as data.image_column, and for pairs the other one as"
            " data.second_image_column",
        )
    used.update(kinds)
    return parts[kinds[0]] if kinds else None


def _texts(
    parts: Mapping[str, TarMember],
    row: Mapping[str, Any],
    columns: CaptionColumns,
    used: set[str],
) -> tuple[str, Any]:
    """Return where the captions of a sample are, and what holds them: a text, or a value of its
    JSON; None where there is none."""
    written = columns.text or "txt"
    if written in parts:
        used.add(written)
        return str(parts[written]), _decode(parts[written])
    usual = CAPTION_COLUMNS if columns.text is None else (columns.text,)
    if row and any(column in row for column in usual):
        where = str(parts["json"])
        return where, row[choose_column(list(row), columns.text, usual, where, "text_column")]
    return str(next(iter(parts.values()))), None


def _decode(member: TarMember) -> str:
    try:
        return member.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            str(member), f"is not UTF-8: {error.reason} at byte {error.start}", "Write it as UTF-8"
        ) from None


def _read_json(member: TarMember) -> Mapping[str, Any]:
    # Strict about keys that are there twice, as all JSON that is read here.
    row = parse_json(_decode(member), str(member))
    if not isinstance(row, dict):
        raise DataError(
            str(member),
            f"holds {type_name(row)}; allowed: an object with named columns",
            'Write {"caption": ...}',
        )
    return row
