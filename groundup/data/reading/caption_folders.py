"""In which form the captions of a path are, and what they say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from groundup.core.errors import DataError
from groundup.core.settings import expand_path
from groundup.data.reading.caption_tars import read_tar
from groundup.data.reading.caption_texts import read_text_files
from groundup.data.reading.captions import (
    CAPTION_COLUMNS,
    PICTURE_COLUMNS,
    CaptionColumns,
    Captioned,
    Captions,
    captions_in,
    choose_column,
    find_picture,
    group_in,
)
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.files import Record, check_text, read_file
from groundup.data.reading.forms import Forms, choose_form
from groundup.data.reading.listing import ROW_KINDS, Listing, list_files
from groundup.data.reading.other_files import missing_path
from groundup.data.reading.split_column import find_split_column, split_of
from groundup.data.splitting.split_names import split_called
from groundup.media.images import SUFFIXES

__all__ = ["CAPTION_FORMS", "PICTURE_KINDS", "CaptionForm", "CaptionReader"]

CaptionForm = Literal["metadata", "text_files", "webdataset"]
CAPTION_FORMS: dict[CaptionForm, str] = {
    "metadata": "metadata.csv, .tsv, .jsonl or .parquet with a row for each picture",
    "text_files": "a .txt of the same name next to each picture",
    "webdataset": "a .tar whose files of one name are a picture and its caption",
}
PICTURE_KINDS = tuple(sorted(SUFFIXES))
_ABOUT = re.compile(r"(readme|licen[cs]e|notice|copying|changelog|citation|authors)\b", re.I)


@dataclass
class _Files:
    """What is below a path: the pictures by name, and for each form the files that are of it."""

    pictures: dict[str, Path] = field(default_factory=dict)
    of_form: dict[CaptionForm, list[DataFile]] = field(default_factory=dict)
    others: list[DataFile] = field(default_factory=list)

    def add(self, form: CaptionForm, file: DataFile) -> None:
        self.of_form.setdefault(form, []).append(file)


@dataclass(frozen=True)
class CaptionReader:
    """How the captions of a path are read.

    Attributes:
        form: Of the captions; None: it is recognised.
        columns: Which columns are read.
        language: Of texts whose lines are of several languages.
        encoding: Of texts and tables without a mark of their own.
        on_unreadable: ``skip`` counts folders that may not be listed, and takes what is whole of
            archives.
    """

    form: CaptionForm | None
    columns: CaptionColumns
    language: str | None = None
    encoding: str | None = None
    on_unreadable: str = "stop"

    def read(self, path: str) -> tuple[Captions, Listing]:
        """Return the captions of a path with their pictures, and what else is there.

        Raises:
            DataError: If there are no captions, those of several forms, or one cannot be read.
        """
        root = Path(expand_path(path))
        if not root.exists():
            raise missing_path(root)
        # With empty files: an empty caption is one that is missing, and not a file of no use.
        kinds = (*PICTURE_KINDS, ".txt", ".tar", *ROW_KINDS)
        if root.is_file():
            kinds = (*ROW_KINDS, ".tar")
        listing = list_files(
            path, kinds, encoding=self.encoding, on_unreadable=self.on_unreadable, with_empty=True
        )
        found = self._sort(listing.files, named=root.is_file())
        form = self._choose(root, found)
        captions = Captions(CAPTION_FORMS[form])
        self._read_form(root, form, found, captions)
        # Next to archives, pictures and texts are files of another kind, and no halves of samples.
        if form != "webdataset":
            _count_others(listing, found, captions, whole=root.is_dir())
        listing.files = [file for file in listing.files if file.relative in captions.files]
        return captions, listing

    def _sort(self, files: Iterable[DataFile], named: bool) -> _Files:
        """Return the files by what they may be; ``named``: it is one that the recipe names."""
        found = _Files()
        texts = []
        for file in files:
            name = PurePosixPath(file.relative).name.lower()
            if file.kind in SUFFIXES:
                found.pictures[file.relative] = file.path
            elif file.kind == ".tar":
                found.add("webdataset", file)
            elif file.kind in ROW_KINDS and (named or self._is_table(name, file)):
                found.add("metadata", file)
            elif file.kind == ".txt" and not _ABOUT.match(name):
                texts.append(file)
            else:
                found.others.append(file)
        stems = {name.rpartition(".")[0] for name in found.pictures}
        # A folder in which no text is called like a picture has texts of another kind.
        if any(file.relative.rpartition(".")[0] in stems for file in texts):
            found.of_form["text_files"] = texts
        else:
            found.others += texts
        return found

    def _is_table(self, name: str, file: DataFile) -> bool:
        """Return whether the rows of a table name pictures and say something of them."""
        if name.startswith("metadata."):
            return True
        try:
            first = next(iter(read_file(file, may_be_empty=True)), None)
        except DataError:
            # Another table in the folder may be anything; one that is read says what is wrong.
            return False
        columns = () if first is None else tuple(first.fields)
        pictures = {self.columns.image or "", *PICTURE_COLUMNS}
        others = {self.columns.text or "", self.columns.second or "", *CAPTION_COLUMNS}
        return not pictures.isdisjoint(columns) and not others.isdisjoint(columns)

    def _choose(self, root: Path, found: _Files) -> CaptionForm:
        """Return the form of the captions."""
        forms = Forms(
            "captions",
            f"{len(found.pictures):,} pictures",
            "texts and tables",
            "forms",
            "Write a metadata.csv with the columns file_name and text next to the pictures, or name"
            " a table of them as data.path",
        )
        return choose_form(root, self.form, CAPTION_FORMS, found.of_form, found.others, forms)

    def _read_form(self, root: Path, form: CaptionForm, found: _Files, captions: Captions) -> None:
        files = found.of_form[form]
        if form == "text_files":
            read_text_files(found.pictures, files, captions, self.language, str(root))
        elif form == "webdataset":
            for file in files:
                read_tar(file, self.columns, captions, self.on_unreadable)
        else:
            for file in files:
                self._read_table(file, captions)

    def _read_table(self, file: DataFile, captions: Captions) -> None:
        """Add the rows of a table with a column of pictures and one of captions."""
        captions.files[file.relative] = file.path
        # A table called train.csv is that split, whatever its rows say.
        split = split_called(PurePosixPath(file.relative).name.split(".")[0])
        sides = None
        if split is None:
            sides = find_split_column([file], self.columns.split)
        folder = file.relative.rpartition("/")[0]
        for record in read_file(file):
            names = self._pictures_in(record)
            own = split
            if sides is not None:
                own = split_of(sides.name, record.fields[sides.name])
            # Of a pair of which one picture is missing, the other is of no use.
            paths = [find_picture(file.path.parent, name) for name in names]
            pictures = [path for path in paths if path is not None]
            if len(pictures) < len(names):
                shown = ", ".join(name or "no name" for name in names)
                captions.without_picture.append(f"{shown} ({record.origin})")
                continue
            first, *others = pictures
            name = f"{folder}/{names[0]}".removeprefix("/")
            one = Captioned(
                first,
                others[0] if others else None,
                name,
                None,
                record.origin,
                own,
                name.rpartition("/")[0],
                group_in(record.fields, self.columns.group, record.origin),
            )
            captions.add(one, self._texts_in(record))

    def _pictures_in(self, record: Record) -> list[str]:
        """Return the names of the picture, or of both of a pair."""
        first = choose_column(
            record.fields, self.columns.image, PICTURE_COLUMNS, record.origin, "image_column"
        )
        columns = [first]
        if self.columns.second is not None:
            columns.append(
                choose_column(
                    record.fields, self.columns.second, (), record.origin, "second_image_column"
                )
            )
        # Pictures that are in the cells themselves are read as a data set, by dataset:.
        return [
            check_text(record.fields[each] or "", record.origin, f"column {each!r}").strip()
            for each in columns
        ]

    def _texts_in(self, record: Record) -> list[str] | list[None]:
        columns = self.columns
        # Pairs need no caption, and so no column; one that is named has to be there.
        usual = any(name in record.fields for name in CAPTION_COLUMNS)
        if columns.second is not None and columns.text is None and not usual:
            return [None]
        named = choose_column(
            record.fields, columns.text, CAPTION_COLUMNS, record.origin, "text_column"
        )
        return captions_in(record.fields[named], record.origin, f"column {named!r}")


def _count_others(listing: Listing, found: _Files, captions: Captions, whole: bool) -> None:
    """Count the pictures without a caption, and the files that are no captions."""
    if not whole:
        return
    # The second pictures of pairs have no row of their own.
    used = {picture for each in captions.found for picture in each.pictures}
    empty = set(captions.without_words)
    captions.without_caption += [
        name for name, path in found.pictures.items() if path not in used and name not in empty
    ]
    for file in listing.files:
        if file.kind not in SUFFIXES and file.relative not in captions.files:
            listing.leave_out(file.relative)
