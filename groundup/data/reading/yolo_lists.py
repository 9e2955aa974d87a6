"""YOLO's lists: texts such as train.txt with the path of a picture a line, each list a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from groundup.core.errors import DataError
from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.marked_pictures import Marked
from groundup.data.reading.picture_index import PictureIndex, look_up
from groundup.data.splitting.split_names import split_word
from groundup.media.images import SUFFIXES

__all__ = ["NamedList", "find_lists", "plain_path", "read_lists"]


class NamedList(NamedTuple):
    """A list that a data.yaml names.

    Attributes:
        path: As it is written there.
        split: What it is of.
        where: The file that names it.
    """

    path: str
    split: Split
    where: str


def plain_path(path: str) -> str:
    """Return a path with slashes and without dots at its begin."""
    return re.sub(r"^(\.{1,2}/)+", "", path.replace("\\", "/")).strip("/")


def find_lists(
    named: Sequence[NamedList], texts: Sequence[DataFile], *, folders: bool
) -> dict[str, tuple[DataFile, Split]]:
    """Return the lists of pictures by their names below the root.

    Args:
        named: What data.yaml names.
        texts: Texts that are no labels.
        folders: Whether data.yaml names folders as splits: no other text is then taken for a list.

    Raises:
        DataError: If a list that is named is not there.
    """
    found: dict[str, tuple[DataFile, Split]] = {}
    for each in named:
        wanted = f"/{plain_path(each.path)}"
        fitting = [
            text
            for text in texts
            # A path of another machine ends with what is here.
            if wanted.endswith(f"/{text.relative}") or f"/{text.relative}".endswith(wanted)
        ]
        if not fitting:
            raise DataError(
                each.where,
                f"names {each.path} as the list of pictures of {each.split}, but there is no such"
                " file",
                "Add it, or name the folder of these pictures",
            )
        best = max(fitting, key=lambda text: len(text.relative))
        found[best.relative] = (best, each.split)
    if named or folders:
        return found
    for text in texts:
        split = split_word(PurePosixPath(text.relative).stem)
        if split is not None and text.kind == ".txt" and _lists_pictures(text):
            found[text.relative] = (text, split)
    # A list called test is one only next to one called train.
    if all(split != "train" for _, split in found.values()):
        return {}
    return found


def _lists_pictures(text: DataFile) -> bool:
    with text.path.open(encoding="utf-8", errors="replace") as handle:
        first = next((line.strip() for line in handle if line.strip()), "")
    return PurePosixPath(first.replace("\\", "/")).suffix.lower() in SUFFIXES


def read_lists(
    lists: dict[str, tuple[DataFile, Split]], index: PictureIndex, found: Marked
) -> dict[str, Split]:
    """Return the split of each picture that is listed, by its name below the root; what is listed
    and missing, or in several lists, is noted."""
    splits: dict[str, Split] = {}
    for text, split in lists.values():
        found.files[text.relative] = text.path
        lines = text.path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{text.path} line {number}"
            picture = look_up(line.strip(), where, text, index, found, split)
            if picture is None:
                continue
            before = splits.setdefault(picture.relative, split)
            if before != split:
                found.complain(
                    "pictures in the lists of several splits",
                    where,
                    f"{picture.relative} is listed for {split}, but for {before} as well",
                    "Remove one of the lines",
                )
    return splits
