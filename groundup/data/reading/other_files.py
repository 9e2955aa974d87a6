"""What to do about a path that names nothing to read: a missing file, or one of another kind."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from groundup.core.errors import DataError, did_you_mean
from groundup.data.reading.compressed import COMPRESSIONS

__all__ = ["missing_path", "remedy_for", "remedy_for_folder"]

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
# what to do about other kinds that are named
_CONVERT = {
    (".xlsx", ".xls", ".xlsm", ".ods", ".numbers"): "Save its sheet as .csv in UTF-8",
    (".docx", ".doc", ".odt", ".rtf", ".pdf", ".epub", ".pptx"): "Save it as plain text, .txt",
    (".pkl", ".pickle", ".pt", ".pth", ".joblib"): (
        "Save the rows as .jsonl, .csv or .parquet: files of this kind can run code, and are never"
        " opened"
    ),
    (".arrow", ".feather", ".orc", ".avro", ".h5", ".hdf5", ".db", ".sqlite", ".sav", ".dta"): (
        "Convert it to .parquet or .csv, such as with pandas"
    ),
}
_NO_ROWS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    ".wav",
    ".mp3",
    ".flac",
)
_FASTTEXT = b"__label__"
_ALIGNS = ".tmx"  # where it is read, so are files that are aligned line by line
_SHOWN = 3  # files that a message names


def remedy_for(path: Path, suffix: str, kinds: Sequence[str]) -> str:
    """Return what to do about a file of another kind that was named."""
    name = shlex.quote(str(path))
    folder = shlex.quote(str(path)[: -len(suffix)] if suffix else f"{path}-files")
    # by modules of the standard library, which are there on every system
    tool = {".zip": "zipfile", ".7z": "", ".rar": ""}.get(suffix, "tarfile")
    if suffix in _ARCHIVES:
        command = f": python -m {tool} -e {name} {folder}" if tool else ""
        return f"Unpack the archive, and name the folder{command}"
    for suffixes, remedy in _CONVERT.items():
        if suffix in suffixes:
            return remedy
    if _ALIGNS in kinds and suffix not in (*_NO_ROWS, *COMPRESSIONS):
        return (
            "Convert it to rows; or for lines that belong to the lines of another file, name that"
            " one as data.target_path"
        )
    if suffix == ".txt":
        with path.open("rb") as handle:
            first = handle.read(len(_FASTTEXT))
        if first == _FASTTEXT:
            new = shlex.quote(str(path.with_suffix(".tsv")))
            columns = "data.header=false data.label_column=1 data.text_column=2 data.quotes=false"
            command = rf"sed 's/^__label__\([^ ]*\) /\1\t/' {name} > {new}"
            return f"Write fastText's lines as cells: {command}, and set {columns}"
        return (
            f"Write its lines as rows of {kinds[0]}; labelled_text reads lines of cells with"
            " data.separator, and texts from a folder for each class"
        )
    if suffix in _NO_ROWS and ".csv" in kinds:
        return "A picture or a sound is no row: give a file of rows"
    if suffix in COMPRESSIONS:
        return f"Name it by what is in it, such as {path.stem}{kinds[0]}{suffix}"
    if ".txt" in kinds:
        return f"Convert it; if it is plain text, name it so: mv {name} {name}.txt"
    return f"Convert it to {kinds[0]}, or give it the suffix of its kind"


def remedy_for_folder(root: Path, other_kinds: Counter[str], kinds: Sequence[str]) -> str:
    """Return what to do about a folder of other kinds alone."""
    otherwise = "or give another folder"
    if not other_kinds:
        return "Give another folder"
    if ".arrow" in other_kinds:
        folder = root if root.is_absolute() else f"./{root}"
        return f"If the library datasets saved it, set data.dataset: {folder} in place of data.path"
    if not other_kinds.keys().isdisjoint(_ARCHIVES):
        return f"Unpack the archive, {otherwise}"
    suffix = other_kinds.most_common(1)[0][0]
    for suffixes, remedy in _CONVERT.items():
        if suffix in suffixes:
            return f"{remedy}; {otherwise}"
    if _ALIGNS in kinds and suffix not in _NO_ROWS:
        names = [each.lstrip(".") for each in sorted(other_kinds)][:2]
        one, other = names if len(names) == 2 else ("en", "de")
        return (
            "For files whose lines belong together, set their languages, as the files are called:"
            f" data.source_language={one} data.target_language={other}; {otherwise}"
        )
    if ".txt" in kinds and suffix.startswith("."):
        return f"If {suffix} files are plain text, name them .txt; {otherwise}"
    return "Give another folder"


def missing_path(path: Path) -> DataError:
    """Return the error for a path that is not there."""
    # the first part of the path that is not there: what to correct may be a folder's name
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing.parent.parent:
        missing = missing.parent
    folder = missing.parent
    problem = f"there is no such file or folder; {folder.resolve()} has no {missing.name!r}"
    if path.is_symlink():
        problem = f"is a broken link, to {os.readlink(path)!r}"
    inside = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    inside = [name for name in inside if name != missing.name]  # a broken link
    if hint := did_you_mean(missing.name, inside).rstrip():
        problem += f"; {hint}"
    remedy = "Correct the path; it is taken relative to the current folder"
    if path.parts[:1] != ("/",) and re.fullmatch(r"[\w-]+/[\w.-]+", str(path)) and not path.suffix:
        remedy += f"; a data set of Hugging Face is data.dataset: {path}"
    if matching := _match_pattern(path):
        problem += f"; a pattern is not expanded, and {len(matching):,} files match it"
        shown = ", ".join(map(str, matching[:_SHOWN]))
        remedy = f"Name their folder, {matching[0].parent}, or a list of files: data.path=[{shown}]"
    if unset := re.search(r"\$\{?(\w+)", str(path)):
        remedy = f"Set the environment variable {unset[1]}, or correct the path"
    return DataError(str(path), problem, remedy)


def _match_pattern(path: Path) -> list[Path]:
    if not re.search(r"[*?\[]", str(path)):
        return []
    return sorted(Path(each) for each in glob.glob(str(path), recursive=True))
