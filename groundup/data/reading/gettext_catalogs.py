"""Catalogs of gettext: .po and .mo files with the texts of a program and their translations."""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from groundup.core.errors import DataError, MissingExtraError
from groundup.data.reading.compressed import DataFile, open_bytes, open_file
from groundup.data.reading.encodings import check_encoding, decode_lines
from groundup.data.reading.files import Record

__all__ = ["catalog_records"]

_CHARSET = re.compile(rb"charset=([\w.:-]+)")
_HEAD = 8192  # bytes in which the header is


def catalog_records(file: DataFile) -> Iterator[Record]:
    """Yield the translated entries of a .po or .mo file.

    A record has ``source`` and ``target``, ``context``, and ``reference``: the first file of the
    program that the text is in. An entry with plural forms is two: the singular with the first
    form, the plural with the last. Entries that are not translated, obsolete or fuzzy (a guess that
    nobody has looked at) are counted in the file's notes.

    Raises:
        MissingExtraError: If polib is not installed.
        DataError: If the file is no catalog.
    """
    file.notes.clear()
    for number, entry in enumerate(_read_catalog(file), 1):
        texts = _texts_of(entry)
        reason = _reason_to_leave_out(entry, texts)
        if reason:
            file.notes[f"{reason} entries, not read"] += 1
            continue
        where = f"{file.path} entry {number}"
        if file.kind == ".po":
            where = f"{file.path} line {entry.linenum}"
        fields = {
            "context": entry.msgctxt or "",
            "reference": entry.occurrences[0][0] if entry.occurrences else "",
        }
        for form, (source, target) in enumerate(texts, 1):
            name = f"{file.relative}:{number}" + (f".{form}" if form > 1 else "")
            yield Record({**fields, "source": source, "target": target}, name, where)


def _read_catalog(file: DataFile) -> Any:
    library = _polib()
    if file.kind == ".mo":
        with open_bytes(file) as handle:
            content = handle.read()
        with _explain(file, file.path):
            return library.mofile(content)
    # By way of a file: a text is cut by the library at U+2028 and others as well, which are letters
    # of an entry.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.po"
        with open_file(file) as handle, path.open("w", encoding="utf-8") as copy:
            head = handle.peek(_HEAD)[:_HEAD]
            copy.writelines(decode_lines(_in_its_charset(file, head), handle, ends=None))
        with _explain(file, path):
            return library.pofile(str(path), encoding="utf-8")


@contextmanager
def _explain(file: DataFile, copy: Path) -> Iterator[None]:
    """Put into words what polib lets through of what it meets in a damaged file."""
    try:
        yield
    except (OSError, ValueError, IndexError, struct.error) as error:
        reason = str(error).replace(f" {copy}", "").strip(". ")
        raise DataError(
            str(file.path),
            f"cannot be read as {file.kind}: {reason}",
            "Correct it; msgfmt --check shows where a .po file is wrong",
        ) from None


def _in_its_charset(file: DataFile, head: bytes) -> DataFile:
    """Return the file with the encoding that its header says, unless the recipe says one."""
    said = _CHARSET.search(head)
    if file.encoding is not None or said is None:
        return file
    charset = said[1].decode()
    # CHARSET is what stands in a template that nobody has filled in.
    if charset == "CHARSET" or check_encoding(charset) is not None:
        return file
    return replace(file, encoding=charset)


def _reason_to_leave_out(entry: Any, texts: list[tuple[str, str]]) -> str:
    if entry.obsolete:
        return "obsolete"
    # msgmerge marks so what it has copied from a similar entry: often another sentence.
    if "fuzzy" in entry.flags:
        return "fuzzy"
    return "" if all(target for _, target in texts) else "untranslated"


def _texts_of(entry: Any) -> list[tuple[str, str]]:
    if not entry.msgid_plural:
        return [(entry.msgid, entry.msgstr)]
    # The number of forms is the language's; the last one is what "many" of something takes.
    forms = [entry.msgstr_plural[number] for number in sorted(entry.msgstr_plural)] or [""]
    plural = (entry.msgid_plural, forms[-1])
    # Languages such as Chinese have one form, which is that of the plural too.
    return [(entry.msgid, forms[0]), plural] if len(forms) > 1 else [plural]


def _polib() -> ModuleType:
    try:
        import polib
    except ImportError:
        raise MissingExtraError("polib", "translation") from None
    return polib  # type: ignore[no-any-return]
