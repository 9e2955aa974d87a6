"""Two files of which line N of the one belongs to line N of the other, and which file belongs to
which."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from groundup.core.errors import DataError
from groundup.data.reading.compressed import DataFile, open_file
from groundup.data.reading.encodings import decode_lines
from groundup.data.reading.files import Record
from groundup.data.reading.listing import list_files, suffix_of

__all__ = ["AlignedFiles", "aligned_records", "name_of_partner"]

_SHOWN = 60  # characters of a line without a partner


def aligned_records(source: DataFile, target: DataFile) -> Iterator[Record]:
    """Yield the lines of two files, each pair as ``source`` and ``target``; either may be empty.

    Raises:
        DataError: If one has more lines than the other, naming the first line without a partner.
    """
    source.notes.clear()
    with open_file(source) as own, open_file(target) as other:
        # A carriage return alone may be in the middle of a sentence: taken for the end of a line,
        # it would shift all pairs behind it.
        pairs = zip_longest(
            decode_lines(source, own, ends="\n"), decode_lines(target, other, ends="\n")
        )
        for number, (first, second) in enumerate(pairs, 1):
            if first is None or second is None:
                raise _unequal(source, target, number, first, second)
            texts = {"source": first.rstrip("\r\n"), "target": second.rstrip("\r\n")}
            yield Record(texts, f"{source.relative}:{number}", f"{source.path} line {number}")


def _unequal(
    source: DataFile, target: DataFile, number: int, first: str | None, second: str | None
) -> DataError:
    longer = target if first is None else source
    shorter = source if first is None else target
    text = (first or second or "").strip()
    return DataError(
        f"{longer.path} line {number}",
        f"has no partner: {shorter.path} ends after line {number - 1}, but aligned files have as"
        f" many lines; the line is {text[:_SHOWN]!r}",
        "Compare the last lines of both, and correct the file in which lines were lost or added",
    )


def name_of_partner(name: str, source: str, target: str) -> str | None:
    """Return the name of the file in the target language, or None where the name of this one does
    not say its language.

    It is a part of the name, or of a folder's: ``train.en``, ``en/train.txt``, ``dev-en.txt``. Of
    several such parts the last one counts.
    """
    parts = re.split(r"([./_-])", name)
    # With a region, such as zh-CN, a language is several of these parts.
    wanted = re.split(r"([./_-])", source.lower())
    for place in range(len(parts) - len(wanted), -1, -1):
        own = parts[place : place + len(wanted)]
        if [part.lower() for part in own] == wanted:
            return "".join((*parts[:place], target, *parts[place + len(wanted) :]))
    return None


class AlignedFiles:
    """Which files have a partner with their targets.

    Args:
        files: The files that may have one.

    Attributes:
        targets: The partner of each file that has one, by the file's path.
        alone: The relative names of the files that neither have a partner nor are one.
    """

    def __init__(self, files: Sequence[DataFile], partners: Mapping[Path, DataFile]) -> None:
        self.targets = partners
        known = {file.path for file in partners.values()}
        # Neither silent nor an error: a read-me file is next to many corpora.
        self.alone = [
            file.relative for file in files if file.path not in partners and file.path not in known
        ]

    @classmethod
    def by_language(cls, files: Sequence[DataFile], source: str, target: str) -> AlignedFiles:
        """Return the files whose names say a language and of which there is one in the other; see
        ``name_of_partner``."""
        partners = {}
        for file in files:
            name = name_of_partner(file.relative, source, target)
            if name is not None:
                # On the disk, not among the files: of a single file the partner is next to it.
                path = Path(str(file.path).removesuffix(file.relative) + name)
                if path.is_file():
                    partners[file.path] = replace(file, path=path, relative=name, notes=Counter())
        return cls(files, partners)

    @classmethod
    def by_path(
        cls, placed: Sequence[tuple[str, DataFile]], targets: Mapping[str, str]
    ) -> AlignedFiles:
        """Return files with those of the same names in other folders.

        Args:
            placed: Each file below the path given.
            targets: The path of the targets, by that of the sources: a file for a file, a folder
                for a folder.

        Raises:
            DataError: If one is a file and the other a folder, or there is no such file.
        """
        partners = {}
        for path, target in targets.items():
            own = [file for given, file in placed if given == path]
            if Path(path).is_dir() != Path(target).is_dir():
                raise DataError(
                    target,
                    "one of path and target_path is a folder, and the other is not",
                    "Name two files, or two folders",
                )
            kinds = tuple(dict.fromkeys([".txt", *(file.kind for file in own), suffix_of(target)]))
            there = list_files(target, kinds, encoding=own[0].encoding if own else None).files
            # Without suffixes, as a.en in the one folder and a.de in the other belong together.
            named = {_stem(file): file for file in there}
            for file in own:
                partner = named.get(_stem(file)) if Path(path).is_dir() else there[0]
                if partner is not None:
                    partners[file.path] = partner
        return cls([file for _, file in placed], partners)

    def contents(self) -> dict[str, Path]:
        """Return the files of targets, by a name that is the same wherever they are."""
        return {f"targets/{file.relative}": file.path for file in self.targets.values()}


def _stem(file: DataFile) -> str:
    return file.relative.removesuffix(suffix_of(file.relative))
