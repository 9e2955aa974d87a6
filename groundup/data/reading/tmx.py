"""Translation memories (.tmx): units with a text in each of several languages, streamed.

Source: TMX 1.4b, Localization Industry Standards Association, 2005.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from groundup.core.errors import DataError
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.files import Record
from groundup.data.reading.safe_xml import read_elements

__all__ = ["tmx_records"]

_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
# Of inline elements, those that only mark a part of the text; all others hold codes of a format.
_MARKS_TEXT = ("hi", "sub")


def tmx_records(file: DataFile, source: str, target: str) -> Iterator[Record]:
    """Yield the units of a translation memory that have a text in both languages.

    A record has ``source`` and ``target``, and the unit's properties by their types. Codes of a
    format, such as tags, are left out of the texts. What is not read is counted in the file's
    notes.

    Args:
        file: The file.
        source: A language such as ``en``, which also stands for ``en-US``.
        target: The other language.

    Raises:
        MissingExtraError: If defusedxml is not installed.
        DataError: If the file is not TMX, declares entities, or no unit has both languages.
    """
    file.notes.clear()
    languages: Counter[str] = Counter()
    found = False
    for number, unit in enumerate(_read_units(file), 1):
        texts: dict[str, str] = {}
        for variant in unit.iter("tuv"):
            # `lang` is what versions before 1.4 had.
            code = variant.get(_LANGUAGE) or variant.get("lang") or ""
            languages[code or "none"] += 1
            side = _side_of(code, source, target)
            # The first counts: tools put what they prefer first, and variants of regions behind.
            if side in texts:
                file.notes["further texts of a unit in one language, not read"] += 1
            elif side:
                texts[side] = _text_of(variant.find("seg"))
        if len(texts) < 2:
            file.notes["units without both languages, not read"] += 1
            continue
        found = True
        properties = {each.get("type", "prop"): each.text or "" for each in unit.findall("prop")}
        origin = f"{file.path} unit {number}"
        yield Record({**properties, **texts}, f"{file.relative}:{number}", origin)
    if not found:
        there = ", ".join(f"{code} ({count:,} texts)" for code, count in languages.most_common(8))
        raise DataError(
            str(file.path),
            f"no unit has a text in both {source!r} and {target!r}; languages: {there or 'none'}",
            "Correct data.source_language or data.target_language",
        )


def _read_units(file: DataFile) -> Iterator[Any]:
    """Yield each ``tu``, of which nothing is kept once the next one is asked for."""
    root = body = None
    for event, element in read_elements(file, ("start", "end"), "translation"):
        if root is None:
            root = element
            _check_root(root, file)
        # Cleared behind each unit: memories of gigabytes are read in the memory of one.
        if event == "start" and element.tag == "body":
            body = element
        if event == "end" and element.tag == "tu":
            yield element
            if body is not None:
                body.clear()


def _check_root(root: Any, file: DataFile) -> None:
    if root.tag != "tmx":
        raise DataError(
            str(file.path),
            f"begins with <{root.tag}>; allowed: <tmx>",
            "Export it as a translation memory in TMX",
        )


def _side_of(code: str, source: str, target: str) -> str:
    """Return which side a language is, or nothing; ``en`` is that of ``en-US`` and ``EN_gb``."""
    code = code.lower().replace("_", "-")
    for side, language in (("source", source), ("target", target)):
        wanted = language.lower().replace("_", "-")
        if code == wanted or code.startswith(f"{wanted}-"):
            return side
    return ""


def _text_of(segment: Any) -> str:
    if segment is None:
        return ""
    parts = [segment.text or ""]
    for inner in segment:
        if inner.tag in _MARKS_TEXT:
            parts.append(_text_of(inner))
        parts.append(inner.tail or "")
    return "".join(parts)
