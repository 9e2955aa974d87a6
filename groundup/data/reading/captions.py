"""Pictures with captions, or pairs of pictures, as readers of captions find them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Split, StoredFile
from groundup.data.reading.placement import group_of
from groundup.data.reading.utterances import one_line

__all__ = [
    "CAPTION_COLUMNS",
    "PICTURE_COLUMNS",
    "CaptionColumns",
    "Captioned",
    "Captions",
    "captions_in",
    "choose_column",
    "find_picture",
    "group_in",
]

# As public data sets call them, the commonest first.
PICTURE_COLUMNS = ("file_name", "image", "image_path", "path", "file", "filename", "img", "picture")
CAPTION_COLUMNS = ("text", "caption", "captions", "sentence", "sentences", "description", "prompt")
# Folders that hold the pictures next to a table.
_FOLDERS = ("", "images", "image", "imgs", "pictures")


class Captioned(NamedTuple):
    """A picture and its caption; or a pair of pictures, with or without one.

    Attributes:
        picture: A Path, or a StoredFile in a row or an archive.
        second: The other picture of a pair.
        name: Of the picture below the path that is read; one picture may have several captions.
        text: The caption, on one line; None where pairs have none.
        origin: Where the caption is.
        split: The split that the data say it is of.
        folder: The folder whose name may be a split's.
        group: What it belongs to, in the column that the recipe names.
    """

    picture: Path | StoredFile
    second: Path | StoredFile | None
    name: str
    text: str | None
    origin: str
    split: Split | None = None
    folder: str = ""
    group: str = ""

    @property
    def pictures(self) -> tuple[Path | StoredFile, ...]:
        """One, or both of a pair."""
        return (self.picture,) if self.second is None else (self.picture, self.second)


class CaptionColumns(NamedTuple):
    """Which columns are read, where the recipe names them; of archives, which parts of names."""

    image: str | None
    second: str | None
    text: str | None
    split: str | None
    group: str | None


@dataclass
class Captions:
    """What the captions of a path say, and what does not fit together in them.

    Attributes:
        form: In which form they are, in the words of data cards.
        found: The pictures and captions.
        files: What was read besides the pictures, by name below the path.
        without_picture: Captions, or pairs, of which a picture is not there.
        without_caption: Pictures that have none.
        without_words: Pictures with an empty caption.
        unread: What of rows and archives is not read, by its kind.
        warnings: What looks like a mistake, for the log and the data card.
    """

    form: str
    found: list[Captioned] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    without_picture: list[str] = field(default_factory=list)
    without_caption: list[str] = field(default_factory=list)
    without_words: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def add(self, one: Captioned, texts: Iterable[str | None]) -> None:
        """Add a picture with each of its captions, unless there is nothing in any."""
        # None is a pair without a caption, and an empty text one whose caption is missing.
        written = [text for text in texts if text is None or text]
        if not written:
            self.without_words.append(one.name)
        self.found += [one._replace(text=text) for text in written]

    def merge(self, other: Captions, prefix: str = "") -> None:
        """Add what another path has; ``prefix`` makes its names other ones."""
        # Several paths may be of several forms, and all of them are said.
        if other.form not in self.form.split("; "):
            self.form = "; ".join(filter(None, (self.form, other.form)))
        if prefix:
            other.found = [each._replace(name=prefix + each.name) for each in other.found]
            other.files = {prefix + name: file for name, file in other.files.items()}
        self.found += other.found
        self.files |= other.files
        self.without_picture += other.without_picture
        self.without_caption += other.without_caption
        self.without_words += other.without_words
        self.unread += other.unread
        self.warnings += other.warnings

    def lacking(self) -> dict[str, list[str]]:
        """Return the names of what has no other half, by the reason."""
        reasons = {
            "captions or pairs without a picture": self.without_picture,
            "pictures without a caption": self.without_caption,
            "pictures with an empty caption": self.without_words,
        }
        return {reason: names for reason, names in reasons.items() if names}


def captions_in(value: Any, where: str, what: str) -> list[str]:
    """Return the captions that a value holds, each on one line: a text, or a list of texts.

    Raises:
        DataError: If it is neither.
    """
    # COCO has five captions of each picture: a list in a row.
    values = value if isinstance(value, list | tuple) else [value]
    return [one_line(each, where, what) for each in values]


def choose_column(
    names: Collection[str], named: str | None, usual: Iterable[str], where: str, setting: str
) -> str:
    """Return a column: the one named, or the first that is there of the usual names.

    Args:
        names: The columns there are.
        named: What the recipe says, or None.
        usual: What columns of this kind are called.
        where: What to call the row in messages.
        setting: The setting that names the column.

    Raises:
        DataError: If it is not there.
    """
    found = next((name for name in usual if name in names), None)
    if named is not None and named in names:
        return named
    if named is None and found is not None:
        return found
    guess = ""
    wanted = f"of the usual names: {', '.join(usual)}"
    if named is not None:
        guess = did_you_mean(named, names)
        wanted = repr(named)
    raise DataError(
        where,
        f"there is no column {wanted}; {guess}columns: {', '.join(map(str, names))}",
        f"Name it as data.{setting}",
    )


def group_in(row: Mapping[str, Any], column: str | None, where: str) -> str:
    """Return what a row belongs to; empty where nothing is asked for.

    Raises:
        DataError: If the column is missing or empty.
    """
    # The word keeps a group from being taken for the name of a picture.
    if column is None:
        return ""
    named = choose_column(list(row), column, (), where, "group_column")
    return f"group {group_of(row[named], where, column)}"


def find_picture(folder: Path, name: str) -> Path | None:
    """Return the picture that a table calls so: its path from the table's folder, or from a folder
    in it that is called as those of pictures are; None where there is none."""
    for path in _places(folder, name):
        if name and path.is_file():
            return path
    return None


def _places(folder: Path, name: str) -> Iterator[Path]:
    forms = [name]
    if not name.isascii():
        # archives made on a Mac hold NFD
        forms += [unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)]
    # The table's own folder first: there the name is what the table says.
    for place in _FOLDERS:
        for form in dict.fromkeys(forms):
            yield folder / place / form
