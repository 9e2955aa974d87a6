"""In which format the boxes of a folder of pictures are, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import expand_path
from groundup.core.values import Split
from groundup.data.reading.box_tables import (
    LABELS,
    BoxLayout,
    TableColumns,
    is_box_table,
    read_box_table,
)
from groundup.data.reading.coco import is_coco, read_coco
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.forms import Forms, choose_form
from groundup.data.reading.listing import ROW_KINDS, Listing, list_files
from groundup.data.reading.marked_pictures import Marked
from groundup.data.reading.other_files import missing_path
from groundup.data.reading.picture_index import PictureIndex
from groundup.data.reading.split_column import find_split_column
from groundup.data.reading.voc import Difficult, is_voc, read_voc, splits_in_lists
from groundup.data.reading.yolo import (
    is_class_list,
    is_yolo_yaml,
    pair_with_pictures,
    read_yolo,
)
from groundup.data.splitting.split_names import split_in_path
from groundup.media.images import SUFFIXES

__all__ = ["FORMS", "BoxReading", "Form", "Units", "find_form", "read_boxes"]

Form = Literal["coco", "voc", "yolo", "table"]
Units = Literal["pixels", "relative"]
FORMS: dict[Form, str] = {
    "coco": "COCO's JSON with images, annotations and categories",
    "voc": "Pascal VOC's XML, a file for each picture",
    "yolo": "YOLO's texts, a file for each picture",
    "table": "a table with file_name, xmin, ymin, xmax, ymax and label, or with bbox",
}
_PICTURES = tuple(sorted(SUFFIXES))
_YAML = (".yaml", ".yml")
_TEXTS = (".txt", ".names")
_KINDS = (*ROW_KINDS, ".xml", *_YAML, *_TEXTS)


class BoxReading(NamedTuple):
    """How boxes are read, as a source's settings say.

    Attributes:
        form: The format; None: it is recognised.
        pictures: The folder of the pictures; None: that of the annotations.
        units: Of the boxes; None: as the format has it.
        layout: What four numbers of a box in one cell are; None: x, y, width, height.
        difficult: What becomes of things that are marked as hard to see.
        split_column: Of a table, by which rows are of several splits; None: to be found; empty:
            none.
        group_column: Of a table, what pictures belong to; None: nothing.
    """

    form: Form | None = None
    pictures: str | None = None
    units: Units | None = None
    layout: BoxLayout | None = None
    difficult: Difficult = "ignore"
    encoding: str | None = None
    on_unreadable: str = "stop"
    split_column: str | None = None
    group_column: str | None = None


@dataclass
class _Files:
    """What is below a path: the pictures, and for each format the files that are of it."""

    root: Path
    listing: Listing
    pictures: list[DataFile] = field(default_factory=list)
    of_form: dict[Form, list[DataFile]] = field(default_factory=dict)
    # Of YOLO's texts, by the names of the pictures that they are of.
    labels: dict[str, DataFile] = field(default_factory=dict)
    # One file was named, and all else in its folder is not part of the data.
    single: bool = False
    others: list[DataFile] = field(default_factory=list)

    def add(self, form: Form, file: DataFile) -> None:
        self.of_form.setdefault(form, []).append(file)


def read_boxes(path: str, reading: BoxReading) -> tuple[Marked, Listing]:
    """Return the pictures of a path with their boxes, and what else is there.

    Args:
        path: A folder, or a file of annotations.
        reading: How they are read.

    Raises:
        DataError: If there are no boxes, those of several formats, or a file cannot be read.
    """
    files = _find(path, reading)
    form = _choose(files, reading.form)
    for name, column in (
        ("split_column", reading.split_column),
        ("group_column", reading.group_column),
    ):
        if column and form != "table":
            raise RecipeError(
                f"recipe.data.{name}",
                f"has no effect: the boxes are in {FORMS[form]}, which has no columns",
                "Remove it; data.group is searched in the names of files",
            )
    found = Marked(FORMS[form])
    # One index for all files, so that in the end it is known which pictures nobody names.
    index = PictureIndex(files.pictures)
    reader = _READERS[form]
    reader(files, index, found, reading)
    if not found.pictures and not found.problems:
        raise DataError(
            str(files.root), f"no picture is in {FORMS[form]}", "Check that the files are complete"
        )
    _refuse_twice(found)
    if not files.single:
        _count_unused(files, index, found)
    return found, files.listing


def find_form(path: Path) -> str:
    """Return in words in which format there are boxes around parts of pictures below a folder, or
    an empty text."""
    files = _find(str(path), BoxReading())
    there = [words for form, words in FORMS.items() if form in files.of_form]
    return there[0] if there and files.pictures else ""


def _count_unused(files: _Files, index: PictureIndex, found: Marked) -> None:
    """Count the pictures and the files of annotations that were not read."""
    left = index.unused()
    found.left_out["pictures that no annotation names"] += len(left)
    if left:
        found.warnings.append(
            f"{len(left):,} pictures are left out, as no annotation names them, such as"
            f" {left[0].relative}"
        )
    used = set(found.files)
    for file in [*files.others, *(file for own in files.of_form.values() for file in own)]:
        if file.relative not in used:
            files.listing.leave_out(file.relative)


# ----------------------------------------------------------------------------------------- finding
def _find(path: str, reading: BoxReading) -> _Files:
    root = Path(expand_path(path))
    if not root.exists():
        raise missing_path(root)
    annotations: list[DataFile] = []
    # data.yaml names classes and splits of the folder that it is in.
    if root.is_file() and root.suffix.lower() in _YAML:
        root = root.parent
    elif root.is_file():
        annotations = list_files(path, _KINDS, encoding=reading.encoding).files
        root = root.parent
        # COCO keeps its files in annotations/, next to the folders of the pictures.
        if root.name.lower() == "annotations":
            annotations = [replace(e, relative=f"{root.name}/{e.relative}") for e in annotations]
            root = root.parent
    # Empty files count: in some formats they say that nothing is in a picture.
    listing = list_files(
        str(root),
        (*_PICTURES, *_KINDS),
        encoding=reading.encoding,
        on_unreadable=reading.on_unreadable,
        with_empty=True,
    )
    found = _Files(root, listing, single=bool(annotations))
    found.pictures = [file for file in listing.files if file.kind in SUFFIXES]
    if not annotations:
        annotations = [file for file in listing.files if file.kind not in SUFFIXES]
    if reading.pictures is not None:
        folder = list_files(reading.pictures, _PICTURES, on_unreadable=reading.on_unreadable)
        found.pictures = folder.files
    _sort(found, annotations)
    return found


def _sort(found: _Files, annotations: Sequence[DataFile]) -> None:
    """Put each file to the format that it is of."""
    # Texts are labels only as a whole: one line tells nothing of a folder of captions.
    texts = [file for file in annotations if file.kind in _TEXTS and not is_class_list(file)]
    found.labels = pair_with_pictures(texts, found.pictures)
    labels = {file.relative for file in found.labels.values()}
    abouts = []
    for file in annotations:
        if file.kind == ".json" and is_coco(file.path):
            found.add("coco", file)
        elif file.kind == ".xml" and is_voc(file.path):
            found.add("voc", file)
        elif file.relative in labels:
            found.add("yolo", file)
        elif is_class_list(file) or (file.kind in _YAML and is_yolo_yaml(file.path)):
            abouts.append(file)
        elif file.kind in ROW_KINDS and is_box_table(file):
            found.add("table", file)
        else:
            found.others.append(file)
    # Names of classes alone are no boxes; next to them, empty texts are labels too.
    if "yolo" in found.of_form:
        found.of_form["yolo"] += abouts
        orphans = [file for file in found.others if _is_orphan(file)]
        found.of_form["yolo"] += orphans
        found.others = [file for file in found.others if file not in orphans]
    else:
        found.others += abouts


def _is_orphan(file: DataFile) -> bool:
    """Return whether a text is where YOLO keeps labels, though no picture belongs to it."""
    return file.kind == ".txt" and "labels" in file.relative.split("/")[:-1]


def _choose(files: _Files, form: Form | None) -> Form:
    """Return the format of the boxes."""
    forms = Forms(
        "boxes",
        f"{len(files.pictures):,} pictures",
        "files",
        "formats",
        "Put the annotations below the folder of the pictures, or name their file as data.path",
    )
    return choose_form(files.root, form, FORMS, files.of_form, files.others, forms)


def _splits_of_files(files: Sequence[DataFile]) -> dict[str, Split | None]:
    """Return the split of each file of annotations by the names of it and its folders; None for all
    where none is called train."""
    named = {e.relative: split_in_path(e.relative, folders_only=False) for e in files}
    if "train" not in named.values():
        return dict.fromkeys(named)
    return named


def _refuse_twice(found: Marked) -> None:
    """Note pictures that several files name; the first counts."""
    first: dict[str, str] = {}
    kept = []
    for picture in found.pictures:
        if picture.name in first:
            found.complain(
                "pictures named by several files",
                picture.where,
                f"{picture.name} is named by {first[picture.name]} as well",
                "Remove it from one of the files, or name the file to read as data.path",
            )
            continue
        first[picture.name] = picture.where
        kept.append(picture)
    found.pictures[:] = kept


# ----------------------------------------------------------------------------------------- formats
def _read_coco_files(
    files: _Files, index: PictureIndex, found: Marked, reading: BoxReading
) -> None:
    own = files.of_form["coco"]
    # Next to COCO's boxes are the same pictures with captions and with key points.
    instances = [e for e in own if PurePosixPath(e.relative).name.startswith("instances_")]
    chosen = instances or own
    splits = _splits_of_files(chosen)
    for file in chosen:
        read_coco(file, index, found, splits[file.relative], shares=reading.units == "relative")


def _read_voc_files(files: _Files, index: PictureIndex, found: Marked, reading: BoxReading) -> None:
    own = files.of_form["voc"]
    lists = [file for file in files.others if "ImageSets/Main" in file.relative]
    # Lists of names come before folders, of which VOC has one for all splits.
    named = splits_in_lists(lists, found)
    splits = _splits_of_files(own)
    if named:
        stems = {file.relative: PurePosixPath(file.relative).stem for file in own}
        splits = {name: named.get(stem) for name, stem in stems.items()}
        listed = [file for file in own if splits[file.relative] is not None]
        found.left_out["pictures in no list of ImageSets"] += len(own) - len(listed)
        own = listed
    read_voc(
        own,
        index,
        found,
        splits,
        difficult=reading.difficult,
        shares=reading.units == "relative",
    )


def _read_yolo_files(
    files: _Files, index: PictureIndex, found: Marked, reading: BoxReading
) -> None:
    own = files.of_form["yolo"]
    abouts = [file for file in own if is_class_list(file) or file.kind in _YAML]
    for file in own:
        if _is_orphan(file) and file not in files.labels.values() and file not in abouts:
            found.complain(
                "files of boxes without a picture",
                str(file.path),
                "there is no picture that this file is of",
                "Add the picture, or remove the file",
            )
            found.files[file.relative] = file.path
    read_yolo(
        files.pictures,
        files.labels,
        abouts,
        found,
        shares=reading.units != "pixels",
        texts=files.others,
    )
    index.used.update(file.relative for file in files.pictures)


def _read_tables(files: _Files, index: PictureIndex, found: Marked, reading: BoxReading) -> None:
    own = files.of_form["table"]
    splits = _splits_of_files(own)
    begin = len(found.pictures)
    column = find_split_column(own, reading.split_column, LABELS)
    columns = TableColumns(None if column is None else column.name, reading.group_column)
    for file in own:
        read_box_table(
            file,
            index,
            found,
            splits[file.relative],
            layout=reading.layout,
            shares=reading.units == "relative",
            columns=columns,
        )
    pictures = found.pictures[begin:]
    # A folder that is called test is one only next to one that is called train.
    if all(picture.split != "train" for picture in pictures):
        for picture in pictures:
            picture.split = None


_Reader = Callable[[_Files, PictureIndex, Marked, BoxReading], None]
_READERS: dict[Form, _Reader] = {
    "coco": _read_coco_files,
    "voc": _read_voc_files,
    "yolo": _read_yolo_files,
    "table": _read_tables,
}
