"""In which format the boxes of a folder of pictures are, and what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from groundup.core.errors import DataError
from groundup.core.settings import expand_path
from groundup.core.values import Split
from groundup.data.reading.coco import is_coco, read_coco
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.listing import Listing, list_files
from groundup.data.reading.marked_pictures import Marked
from groundup.data.reading.other_files import missing_path
from groundup.data.reading.picture_index import PictureIndex
from groundup.data.splitting.split_names import split_in_path
from groundup.media.images import SUFFIXES

__all__ = ["FORMS", "BoxReading", "Form", "Units", "read_boxes"]

Form = Literal["coco"]
Units = Literal["pixels", "relative"]
FORMS: dict[Form, str] = {
    "coco": "COCO's JSON with images, annotations and categories",
}
_PICTURES = tuple(sorted(SUFFIXES))


class BoxReading(NamedTuple):
    """How boxes are read, as a source's settings say.

    Attributes:
        form: The format; None: it is recognised.
        pictures: The folder of the pictures; None: that of the annotations.
        units: Of the boxes; None: as the format has it.
    """

    form: Form | None = None
    pictures: str | None = None
    units: Units | None = None
    encoding: str | None = None
    on_unreadable: str = "stop"


@dataclass
class _Files:
    """What is below a path: the pictures, and for each format the files that are of it."""

    root: Path
    listing: Listing
    pictures: list[DataFile] = field(default_factory=list)
    of_form: dict[Form, list[DataFile]] = field(default_factory=dict)
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
    return found, files.listing


# ----------------------------------------------------------------------------------------- finding
def _find(path: str, reading: BoxReading) -> _Files:
    root = Path(expand_path(path))
    if not root.exists():
        raise missing_path(root)
    kinds = (".json",)
    annotations: list[DataFile] = []
    if root.is_file():
        (annotation,) = list_files(path, kinds, encoding=reading.encoding).files
        annotations = [annotation]
        root = root.parent
        # COCO keeps its files in annotations/, next to the folders of the pictures.
        if root.name == "annotations":
            root = root.parent
            annotations = [
                DataFile(annotation.path, f"annotations/{annotation.relative}", annotation.kind, "")
            ]
    # Empty files count: in some formats they say that nothing is in a picture.
    listing = list_files(
        str(root),
        (*_PICTURES, *kinds),
        encoding=reading.encoding,
        on_unreadable=reading.on_unreadable,
        with_empty=True,
    )
    found = _Files(root, listing)
    found.pictures = [file for file in listing.files if file.kind in SUFFIXES]
    if not annotations:
        annotations = [file for file in listing.files if file.kind not in SUFFIXES]
    if reading.pictures is not None:
        folder = list_files(reading.pictures, _PICTURES, on_unreadable=reading.on_unreadable)
        found.pictures = folder.files
    for file in annotations:
        if file.kind == ".json" and is_coco(file.path):
            found.add("coco", file)
        else:
            found.others.append(file)
    return found


def _choose(files: _Files, form: Form | None) -> Form:
    """Return the format of the boxes."""
    there = [each for each in FORMS if each in files.of_form]
    if form is not None and form in there:
        return form
    if form is None and len(there) == 1:
        return there[0]
    if form is None and there:
        names = ", ".join(f"{each} ({files.of_form[each][0].relative})" for each in there)
        raise DataError(
            str(files.root), f"holds boxes in several formats: {names}", "Name one as data.form"
        )
    others = Counter(PurePosixPath(file.relative).name for file in files.others)
    looked = FORMS[form] if form is not None else "; ".join(FORMS.values())
    named = ", ".join(name for name, _ in others.most_common(6)) or "none"
    raise DataError(
        str(files.root),
        f"no boxes are found for {len(files.pictures):,} pictures; looked for: {looked}; other"
        f" files: {named}",
        "Put the annotations below the folder of the pictures, or name their file as data.path",
    )


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


_Reader = Callable[[_Files, PictureIndex, Marked, BoxReading], None]
_READERS: dict[Form, _Reader] = {"coco": _read_coco_files}
