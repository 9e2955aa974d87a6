"""Sound files with a label each: a folder for every class, or a table beside the files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import model_validator

from groundup.core.errors import DataError
from groundup.core.interfaces import DataContext, DataSource, Split, Stream
from groundup.core.records import Example
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.sounds import SOUND_KINDS, read_sound
from groundup.data.class_folders import Filed, Folders, class_files, split_folders
from groundup.data.files import read_records
from groundup.data.held_out import (
    Drawing,
    draw,
    label_counts,
    lengths_of,
    problem_with_drawing,
    refuse_empty,
    refuse_lost,
    refuse_unknown,
)
from groundup.data.indexed import open_indexed_stream

__all__ = ["Audio"]

_TABLES = ("metadata.csv", "metadata.jsonl")
_FORMAT = 2  # raise it when a file would be described in another way
_SHOWN = 20
_log = logging.getLogger(__name__)


class _Heard(NamedTuple):
    """What reading a file told: ``problem`` is empty where it can be read; ``digest`` stands for its samples."""

    seconds: float
    rate: int
    channels: int
    digest: str
    problem: str


@data("audio")
class Audio(DataSource):
    """Sounds: root/CLASS/*.wav, .flac, .ogg, .mp3, or root/metadata.csv (or .jsonl) with file_name and label.

    Folders ``train`` and ``validation`` (or valid, val, dev, test) below the root are the splits. Files with the same
    samples are always on one side.
    """

    path: str = setting(..., "The folder, relative to the current one")
    label_column: str = setting("label", "Column of metadata.csv or metadata.jsonl that holds the label")
    group: str | None = setting(
        None,
        "Regular expression searched in a file's path below the root; files for which its first group, or the whole"
        " match, is the same, such as a speaker's, are on one side",
        min_length=1,
    )
    unreadable: Literal["stop", "set_aside"] = setting(
        "stop", "Files that cannot be read, are empty or hold numbers that are not finite: stop, or leave them out"
    )
    in_memory: bool = setting(True, "Keep the features of all sounds; false: read each file when its turn comes")
    validation_fraction: float = setting(0.1, "Share of the files, or of the groups, held out", gt=0, lt=1)
    folds: int | None = setting(None, "Cut the files, or groups, into so many folds, one of them held out", ge=2)
    fold: int = setting(0, "The fold that is held out, from 0", ge=0)
    split_seed: int = setting(0, "Another seed holds out other files", ge=0)
    licence: str = setting("", "Licence of the sounds, for the data card")

    @model_validator(mode="after")
    def _consistent(self) -> Audio:
        problem = problem_with_drawing(self._drawing(), self._changed(), None)
        if problem is None and self.group is not None:
            try:
                re.compile(self.group)
            except re.error as error:
                problem = f"group {self.group!r} is no regular expression: {error}. Correct it"
        if problem:
            raise ValueError(problem)
        return self

    def _drawing(self) -> Drawing:
        return Drawing(self.validation_fraction, self.split_seed, self.folds, self.fold)

    def _changed(self) -> list[str]:
        names = ("validation_fraction", "folds", "fold", "split_seed", "group")
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].default]

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the sounds of a split, sorted by name; inputs are paths.

        Raises:
            DataError: If there are none, a file cannot be read and ``unreadable`` is stop, or a table is wrong.
        """
        placed = self._placed(cache)
        chosen = [file for file, side in placed if side == split]
        if not chosen:
            named = self._split_folders().validation is not None
            raise refuse_empty(split, self.path, None if named else self._drawing())
        if not any(_table_of(file) for file in self._split_folders()[:2] if file is not None):
            train, held_out = ([f.label for f, side in placed if side == each] for each in ("train", "validation"))
            refuse_unknown(train, held_out, self.path)
        return [Example(file.name, str(file.path), file.label, str(file.path)) for file in chosen]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        examples = self.examples(context.split, context.cache)
        if context.split == "train":
            self._warn(context.cache)
        return open_indexed_stream(examples, context, in_memory=self.in_memory)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return files of each label in each split, lengths, rates and channels, and what was set aside."""
        files, folders, loose = self._files()
        heard = self._heard([file for each in files.values() for file in each], cache)
        card: dict[str, Any] = {"source": self.path, "licence": self.licence or "not stated"}
        splits: tuple[Split, ...] = ("train", "validation")
        for split in splits:
            found = self.examples(split, cache)
            seconds = [heard[example.name].seconds for example in found]
            card[split] = label_counts(found) | {"seconds": round(sum(seconds), 1)} | lengths_of(seconds, "seconds")
        read = [each for each in heard.values() if not each.problem]
        bad = {name: each.problem for name, each in sorted(heard.items()) if each.problem}
        return card | {
            "sample_rates": _counted(each.rate for each in read),
            "channels": _counted(each.channels for each in read),
            "several_channels": "averaged",
            "same_as_validation": len(read) - sum(card[split]["examples"] for split in splits),
            "same_samples": len(read) - len({each.digest for each in read}),
            "kept_together": self.group or "files with the same samples",
            "without_class": loose,
            "folders_not_used": list(folders.unused),
            "set_aside": len(bad),
            "set_aside_files": dict(list(bad.items())[:_SHOWN]),
        }

    def _warn(self, cache: Path) -> None:
        heard = self._heard([file for each in self._files()[0].values() for file in each], cache)
        if bad := sorted(name for name, each in heard.items() if each.problem):
            named = ", ".join(bad[:_SHOWN])
            _log.warning(f"{self.path}: {len(bad):,} sounds that cannot be used are set aside: {named}")

    def _placed(self, cache: Path) -> list[tuple[Filed, Split]]:
        """Return every file that can be read, and its side."""
        files, folders, _ = self._files()
        every = [file for each in files.values() for file in each]
        heard = self._heard(every, cache)
        bad = next((file for file in every if heard[file.name].problem), None)
        if bad is not None and self.unreadable == "stop":
            others = sum(bool(each.problem) for each in heard.values()) - 1
            problem = heard[bad.name].problem + (f" ({others:,} other sounds too)" if others else "")
            raise DataError(str(bad.path), problem, "Mend or remove it, or set data.unreadable: set_aside")
        if not any(_table_of(file) for file in self._split_folders()[:2] if file is not None):
            refuse_lost([f.label for f in every], [f.label for f in every if not heard[f.name].problem], self.path)
        readable = {side: [file for file in each if not heard[file.name].problem] for side, each in files.items()}
        if folders.validation is not None:
            held_out = {heard[file.name].digest for file in readable["validation"]}
            readable["train"] = [file for file in readable["train"] if heard[file.name].digest not in held_out]
            return [(file, side) for side, each in readable.items() for file in each]
        kept = readable["train"]
        sides = draw([self._keys(f, heard[f.name]) for f in kept], [f.label for f in kept], self._drawing())
        return list(zip(kept, sides, strict=True))

    def _keys(self, file: Filed, heard: _Heard) -> tuple[str, ...]:
        if self.group is None:
            return (f"samples {heard.digest}",)
        found = re.search(self.group, file.name)
        name = None if found is None else (found.group(1) if found.re.groups else found.group())
        if name is None:
            problem = f"data.group {self.group!r} finds nothing in {file.name!r}"
            raise DataError(str(file.path), problem, "Correct the expression so that it fits every file")
        return (f"group {name}", f"samples {heard.digest}")

    def _files(self) -> tuple[dict[Split, list[Filed]], Folders, int]:
        """Return the files named for each split, sorted; where the splits lie; how many files have no label."""
        root, folders = Path(self.path).expanduser(), self._split_folders()
        if folders.validation is not None and self._changed():
            problem = f"has no effect: the folders train and {folders.validation.name} are the splits"
            raise DataError(f"recipe.data.{self._changed()[0]}", problem, "Remove it, or name another folder")
        files: dict[Split, list[Filed]] = {}
        files["train"], loose = self._labelled(folders.train, root)
        if folders.validation is not None:
            files["validation"], more = self._labelled(folders.validation, root)
            loose += more
        return files, folders, loose

    def _split_folders(self) -> Folders:
        return split_folders(Path(self.path).expanduser(), SOUND_KINDS, _TABLES)

    def _labelled(self, folder: Path, root: Path) -> tuple[list[Filed], int]:
        table = _table_of(folder)
        if table is None:
            return class_files(folder, SOUND_KINDS, root)
        found: dict[Path, Filed] = {}
        for record in read_records(table, columns=("file_name", self.label_column)):
            path, label = folder / str(record.fields["file_name"]), record.fields[self.label_column]
            problem = ""
            if not path.is_file():
                problem = f"there is no file {path}"
            elif path in found:
                problem = f"{record.fields['file_name']} has a row already"
            elif label in (None, ""):
                problem = f"{record.fields['file_name']} has no label"
            if problem:
                raise DataError(record.origin, problem, "Correct the row, or remove it")
            found[path] = Filed(path, Path(os.path.relpath(path, root)).as_posix(), label)
        inside = sum(p.suffix.lower() in SOUND_KINDS and p not in found for p in folder.rglob("*"))
        return sorted(found.values(), key=lambda file: file.name), inside

    def _heard(self, files: Sequence[Filed], cache: Path) -> dict[str, _Heard]:
        """Return what reading every file told, by its name: from the cache where no file has changed since."""
        key = hashlib.sha256(f"{_FORMAT}\0{Path(self.path).expanduser().resolve()}".encode())
        for file in files:
            status = file.path.stat()
            key.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        kept = cache / f"audio-{key.hexdigest()[:24]}.json"
        if kept.is_file():
            return {name: _Heard(*values) for name, values in json.loads(kept.read_bytes()).items()}
        found = {file.name: _hear(file.path) for file in files}
        cache.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f"{kept.name}.{os.getpid()}")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(kept)
        return found


def _table_of(folder: Path) -> Path | None:
    return next((folder / name for name in _TABLES if (folder / name).is_file()), None)


def _hear(path: Path) -> _Heard:
    try:
        sound = read_sound(path)
    except DataError as error:
        return _Heard(0.0, 0, 0, "", error.problem)
    digest = hashlib.blake2b(sound.samples.tobytes(), digest_size=16, key=str(sound.rate).encode()).hexdigest()
    return _Heard(sound.seconds, sound.rate, sound.channels, digest, "")


def _counted(values: Any) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}
