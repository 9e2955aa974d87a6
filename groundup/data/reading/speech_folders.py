"""In which form the transcripts of a folder of sounds are, and what they say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from groundup.core.errors import DataError
from groundup.core.settings import expand_path
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.files import Cells
from groundup.data.reading.forms import Forms, choose_form
from groundup.data.reading.listing import ROW_KINDS, Listing, list_files
from groundup.data.reading.other_files import missing_path
from groundup.data.reading.speech_lists import read_kaldi, read_librispeech, read_text_files
from groundup.data.reading.speech_tables import (
    has_text_column,
    is_common_voice,
    is_ljspeech,
    read_common_voice,
    read_ljspeech,
    read_table,
    sounds_in_table,
)
from groundup.data.reading.utterances import SpeechColumns, Transcripts, shown
from groundup.media.audio import SOUND_KINDS

__all__ = ["FORMS", "Form", "has_transcripts", "read_transcripts"]

Form = Literal["metadata", "ljspeech", "common_voice", "librispeech", "kaldi", "text_files"]
FORMS: dict[Form, str] = {
    "metadata": "metadata.csv, .tsv, .jsonl or .parquet with a row for each sound",
    "ljspeech": "metadata.csv with id|text in each line",
    "common_voice": "Common Voice's .tsv with path and sentence",
    "librispeech": "LibriSpeech's .trans.txt",
    "kaldi": "Kaldi's wav.scp and text",
    "text_files": "a .txt of the same name next to each sound",
}
_ABOUT = re.compile(
    r"(readme|licen[cs]e|notice|copying|changelog|citation|authors|speakers)\b", re.I
)


@dataclass
class _Files:
    """What is below a path: the sounds by name, and for each form the files that are of it."""

    sounds: dict[str, Path] = field(default_factory=dict)
    of_form: dict[Form, list[DataFile]] = field(default_factory=dict)
    others: list[DataFile] = field(default_factory=list)

    def add(self, form: Form, file: DataFile) -> None:
        self.of_form.setdefault(form, []).append(file)


def read_transcripts(
    path: str,
    form: Form | None,
    columns: SpeechColumns,
    *,
    encoding: str | None = None,
    on_unreadable: str = "stop",
) -> tuple[Transcripts, Listing]:
    """Return what is said in the sounds of a path, and what else is there.

    Args:
        path: A folder, or a table whose rows name sounds.
        form: Of the transcripts; None: it is recognised.
        columns: Of tables, where the recipe names them.
        encoding: Of texts and tables without a mark of their own.
        on_unreadable: ``skip`` counts folders that may not be listed.

    Raises:
        DataError: If there are no transcripts, those of several forms, or one cannot be read.
    """
    root = Path(expand_path(path))
    if not root.exists():
        raise missing_path(root)
    if root.is_file():
        return _read_file(path, form, columns, encoding)
    kinds = (*SOUND_KINDS, ".txt", *ROW_KINDS, ".scp")
    listing = list_files(
        path, kinds, encoding=encoding, on_unreadable=on_unreadable, with_empty=True
    )
    found = _sort(listing.files)
    chosen = _choose(root, form, found)
    transcripts = Transcripts(FORMS[chosen])
    elsewhere = _read_form(chosen, found, columns, encoding, transcripts)
    used = {*transcripts.sounds, *elsewhere}
    alone = [name for name, sound in found.sounds.items() if sound not in used]
    transcripts.without_transcript += alone
    known = set(transcripts.files)
    unused = [f for f in listing.files if f.kind not in SOUND_KINDS and f.relative not in known]
    # What is no transcript is counted with what is of other kinds.
    for file in unused:
        listing.leave_out(file.relative)
    listing.files = [file for file in listing.files if file.kind in SOUND_KINDS]
    return transcripts, listing


def has_transcripts(path: Path) -> bool:
    """Return whether a folder of sounds says what is said in them, in one of the forms that are
    read; a table without such a column says labels."""
    found = _sort(list_files(path, (*SOUND_KINDS, ".txt", *ROW_KINDS, ".scp")).files)
    tables = found.of_form.pop("metadata", [])
    return bool(found.of_form) or any(has_text_column(file) for file in tables)


def _read_file(
    path: str, form: Form | None, columns: SpeechColumns, encoding: str | None
) -> tuple[Transcripts, Listing]:
    listing = list_files(path, (*ROW_KINDS, ".txt"), encoding=encoding)
    (file,) = listing.files
    if (form is None and is_ljspeech(file.path)) or form == "ljspeech":
        transcripts = Transcripts(FORMS["ljspeech"])
        read_ljspeech(file, transcripts)
    elif form in (None, "metadata", "common_voice") and file.kind in ROW_KINDS:
        tabs = Cells(separator="\t", quotes=False)
        own = is_common_voice(file.path)
        transcripts = Transcripts(FORMS["common_voice"] if own else "a table of sounds")
        read_table(file, columns, transcripts, cells=tabs if own else None)
    else:
        problem = f"is a file; allowed with data.form: {form}: a folder" if form else "is no table"
        raise DataError(path, problem, "Name the folder of the sounds, or a table that names them")
    listing.files = []
    return transcripts, listing


def _sort(files: Iterable[DataFile]) -> _Files:
    """Return the files by what they may be."""
    found = _Files()
    texts = []
    for file in files:
        name = PurePosixPath(file.relative).name.lower()
        if file.kind in SOUND_KINDS:
            found.sounds[file.relative] = file.path
        elif name == "wav.scp":
            found.add("kaldi", file)
        elif name.endswith(".trans.txt"):
            found.add("librispeech", file)
        elif name.startswith("metadata.") and file.kind in (*ROW_KINDS, ".txt"):
            found.add("ljspeech" if is_ljspeech(file.path) else "metadata", file)
        elif file.kind == ".tsv" and is_common_voice(file.path):
            found.add("common_voice", file)
        elif file.kind == ".txt" and not _ABOUT.match(name):
            texts.append(file)
        else:
            found.others.append(file)
    stems = {name.rpartition(".")[0] for name in found.sounds}
    # A folder in which no text is called like a sound has texts of another kind.
    if any(file.relative.rpartition(".")[0] in stems for file in texts):
        found.of_form["text_files"] = texts
    return found


def _choose(root: Path, form: Form | None, found: _Files) -> Form:
    """Return the form of the transcripts."""
    forms = Forms(
        "transcripts",
        f"{len(found.sounds):,} sounds",
        "texts and tables",
        "forms",
        "Write a metadata.csv with the columns file_name and text next to the sounds, or name a"
        " table of them as data.path",
    )
    return choose_form(root, form, FORMS, found.of_form, found.others, forms)


def _read_form(
    form: Form,
    found: _Files,
    columns: SpeechColumns,
    encoding: str | None,
    transcripts: Transcripts,
) -> set[Path]:
    """Read all transcripts of a form; return sounds that are named elsewhere than in them."""
    files = found.of_form[form]
    elsewhere: set[Path] = set()
    if form == "librispeech":
        read_librispeech(found.sounds, files, transcripts)
    elif form == "text_files":
        read_text_files(found.sounds, files, transcripts)
    elif form == "common_voice":
        # Each language is a folder of its own.
        for folder in dict.fromkeys(_folder_of(file) for file in files):
            own = [file for file in files if _folder_of(file) == folder]
            unused = list(read_common_voice(own, columns, transcripts, folder))
            elsewhere.update(sound for file in unused for sound in sounds_in_table(file))
            if unused:
                names = shown([file.relative for file in unused])
                transcripts.warnings.append(f"tables that are not used: {names}")
    else:
        for file in files:
            folder = _folder_of(file)
            if form == "kaldi":
                elsewhere.update(read_kaldi(file.path.parent, folder, encoding, transcripts))
            elif form == "ljspeech":
                read_ljspeech(file, transcripts, folder)
            else:
                read_table(file, columns, transcripts, folder=folder)
    return elsewhere


def _folder_of(file: DataFile) -> str:
    return file.relative.rpartition("/")[0]
