"""Captions in a .txt of the same name next to each picture; of one language where each line is of
another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from groundup.core.errors import DataError, did_you_mean
from groundup.data.reading.captions import Captioned, Captions
from groundup.data.reading.compressed import DataFile, open_file
from groundup.data.reading.encodings import decode_text
from groundup.data.reading.utterances import one_line

__all__ = ["read_text_files"]

# As Tux Paint's stamps have them: English first, then pt_BR.utf8=... and so on.
_LANGUAGE = re.compile(r"([a-z]{2,3}(?:_[A-Z]{2})?(?:@\w+)?)\.utf8=(.*)")
_FIRST = "en"


def read_text_files(
    pictures: Mapping[str, Path],
    texts: Iterable[DataFile],
    captions: Captions,
    language: str | None,
    where: str,
) -> None:
    """Add pictures with a .txt of the same name next to them.

    Args:
        pictures: By their names below the path.
        texts: The .txt files below it.
        captions: What they are added to.
        language: Of files whose lines are of several; None: their first line.
        where: What to call all of them in messages.

    Raises:
        DataError: If two pictures share a text, a file cannot be read, or none has the language.
    """
    # By the whole path: two folders may have files of one name.
    by_stem: dict[str, str] = {}
    for name in pictures:
        other = by_stem.setdefault(name.rpartition(".")[0], name)
        if other != name:
            raise DataError(
                str(pictures[name]),
                f"has the same name as {other} but for the kind: one text would be of both",
                "Rename or remove one of them",
            )
    known: set[str] = set()
    for file in texts:
        # Without a picture it has been read all the same, and is no file of another kind.
        captions.files[file.relative] = file.path
        name = by_stem.get(file.relative.rpartition(".")[0], "")
        if not name:
            captions.without_picture.append(file.relative)
            continue
        with open_file(file) as handle:
            content = decode_text(file, handle)
        translated = _translations(content)
        known.update(translated)
        text = content
        if translated:
            # Who asks for no language gets that of the first line, which is English.
            text = translated.get(language or _FIRST, "")
        origin = str(file.path)
        folder = name.rpartition("/")[0]
        found = Captioned(pictures[name], None, name, None, origin, folder=folder)
        captions.add(found, [one_line(text, origin, "the file")])
    if language is not None and language not in known:
        have = f"the captions are in {', '.join(sorted(known))}"
        if not known:
            have = "no caption has lines such as fr.utf8=..."
        raise DataError(
            where,
            f"language {language!r}: {have}",
            f"{did_you_mean(language, known)}Correct data.language, or remove it",
        )


def _translations(content: str) -> dict[str, str]:
    """Return a caption by its languages; nothing where a text is not written so."""
    # Every line has to be one: a caption may well speak of fr.utf8=.
    first, *others = content.strip().splitlines() or [""]
    matches = [_LANGUAGE.fullmatch(line.strip()) for line in others if line.strip()]
    if not matches or None in matches or _LANGUAGE.fullmatch(first.strip()):
        return {}
    found = {match[1]: match[2].strip() for match in matches if match is not None}
    return {_FIRST: first.strip(), **{name: text for name, text in found.items() if text}}
