"""Sounds with a label each: a folder for every class, a table beside the files, or a Hugging Face
data set."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import model_validator

from groundup.core.contracts.data import DataContext, DataSource, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split, StoredFile
from groundup.data.reading.class_folders import Filed, class_files, split_folders
from groundup.data.reading.files import read_records
from groundup.data.reading.hub_splits import HubOrigin, problem_with_dataset, refuse_idle
from groundup.data.reading.location import changed
from groundup.data.splitting.held_out import (
    Drawing,
    draw,
    label_counts,
    lengths_of,
    problem_with_drawing,
    refuse_empty,
    refuse_lost,
    refuse_unknown,
)
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.audio import SOUND_KINDS, read_sound

__all__ = ["Audio"]

_TABLES = ("metadata.csv", "metadata.jsonl")
_FORMAT = 2  # raise it when a file would be described in another way
_SHOWN = 20
_log = logging.getLogger(__name__)


class _Heard(NamedTuple):
    """What reading a file told: ``problem`` is empty where it can be read; ``digest`` stands for
    its samples."""

    seconds: float
    rate: int
    channels: int
    digest: str
    problem: str


class _Files(NamedTuple):
    """The files named for each split; ``named``: the held-out ones are. ``key`` changes when what
    is read does."""

    files: dict[Split, list[Filed]]
    named: bool
    key: str
    tabled: bool = False  # a table beside the files says their labels
    unused: tuple[str, ...] = ()
    without_class: int = 0


@data("audio")
class Audio(DataSource):
    """Sounds: root/CLASS/*.wav, .flac, .ogg, .mp3, root/metadata.csv (or .jsonl) of file_name and
    label, a hub name.

    Folders ``train`` and ``validation`` (or valid, val, dev, test) below the root are the splits;
    of a data set those called validation and test are what they are called. Files with the same
    samples are always on one side.
    """

    path: str | None = setting(None, "The folder, relative to the current one")
    dataset: str | None = setting(
        None, "Hugging Face data set, or a folder with a copy of one, instead of path"
    )
    subset: str | None = setting(None, "Configuration of the data set")
    revision: str | None = setting(None, "Branch, tag or commit of the data set")
    dataset_split: str = setting(
        "train", "Split of the data set that is learned from, or a part such as train[:80%]"
    )
    validation_split: str | None = setting(
        None, "Split that is held out; silent: its own, or a share of the other"
    )
    test_split: str | None = setting(
        None, "Split that is only judged; silent: the one called test, if it has labels"
    )
    audio_column: str | None = setting(
        None, "Column of the data set's sounds; silent: found by its type"
    )
    label_column: str = setting(
        "label", "Column of the label; of a data set found by its type where none is so called"
    )
    group: str | None = setting(
        None,
        "Regular expression searched in a file's path below the root; files for which its first"
        " group, or the whole match, is the same, such as a speaker's, are on one side",
        min_length=1,
    )
    unreadable: Literal["stop", "set_aside"] = setting(
        "stop",
        "Files that cannot be read, are empty or hold numbers that are not finite: stop, or leave"
        " them out",
    )
    in_memory: bool = setting(
        True, "Keep the features of all sounds; false: read each file when its turn comes"
    )
    validation_fraction: float = setting(
        0.1, "Share of the files, or of the groups, held out", gt=0, lt=1
    )
    folds: int | None = setting(
        None, "Cut the files, or groups, into so many folds, one of them held out", ge=2
    )
    fold: int = setting(0, "The fold that is held out, from 0", ge=0)
    split_seed: int = setting(0, "Another seed holds out other files", ge=0)
    licence: str = setting("", "Licence of the sounds, for the data card")

    @model_validator(mode="after")
    def _consistent(self) -> Audio:
        problem = problem_with_dataset(self, ("audio_column",), ("group",))
        problem = problem or problem_with_drawing(self._drawing(), self._changed(), None)
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
        return changed(self, "validation_fraction", "folds", "fold", "split_seed", "group")

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are: a test split where the data set has one of its own."""
        origin = HubOrigin.of(self)
        has_test = origin is not None and "test" in origin.tables(self._label_named)
        return ("train", "validation", "test") if has_test else ("train", "validation")

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the sounds of a split, sorted by name, or in the order of the rows; inputs are
        paths, or rows.

        Raises:
            DataError: If there are none, a file cannot be read and ``unreadable`` is stop, or a
                table is wrong.
        """
        found = self._files()
        placed = self._placed(found, cache)
        chosen = [file for file, side in placed if side == split]
        if not chosen:
            raise refuse_empty(split, self._name, None if found.named else self._drawing())
        if not found.tabled:
            labels = {
                each: [f.label for f, side in placed if side == each] for each in self.splits()
            }
            for each in self.splits()[1:]:
                refuse_unknown(labels["train"], labels[each], self._name)
        return [
            Example(
                f.name, str(f.path) if isinstance(f.path, Path) else f.path, f.label, str(f.path)
            )
            for f in chosen
        ]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        examples = self.examples(context.split, context.cache)
        if context.split == "train":
            self._warn(context.cache)
        return open_indexed_stream(examples, context, in_memory=self.in_memory)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return files of each label in each split, lengths, rates and channels, and what was set
        aside."""
        found_files = self._files()
        heard = self._heard(found_files, cache)
        card: dict[str, Any] = {"source": self.path, "licence": self.licence or "not stated"}
        if (origin := HubOrigin.of(self)) is not None:
            card = origin.about(origin.tables(self._label_named), self.licence)
        for split in self.splits():
            found = self.examples(split, cache)
            seconds = [heard[example.name].seconds for example in found]
            card[split] = (
                label_counts(found)
                | {"seconds": round(sum(seconds), 1)}
                | lengths_of(seconds, "seconds")
            )
        read = [each for each in heard.values() if not each.problem]
        bad = {name: each.problem for name, each in sorted(heard.items()) if each.problem}
        return card | {
            "sample_rates": _counted(each.rate for each in read),
            "channels": _counted(each.channels for each in read),
            "several_channels": "averaged",
            "same_as_validation": (
                len(read) - sum(card[split]["examples"] for split in self.splits())
            ),
            "same_samples": len(read) - len({each.digest for each in read}),
            "kept_together": self.group or "files with the same samples",
            "without_class": found_files.without_class,
            "folders_not_used": list(found_files.unused),
            "set_aside": len(bad),
            "set_aside_files": dict(list(bad.items())[:_SHOWN]),
        }

    def _warn(self, cache: Path) -> None:
        heard = self._heard(self._files(), cache)
        if bad := sorted(name for name, each in heard.items() if each.problem):
            named = ", ".join(bad[:_SHOWN])
            _log.warning(
                f"{self._name}: {len(bad):,} sounds that cannot be used are set aside: {named}"
            )

    def _placed(self, found: _Files, cache: Path) -> list[tuple[Filed, Split]]:
        """Return every file that can be read, and its side."""
        heard = self._heard(found, cache)
        every = [file for each in found.files.values() for file in each]
        bad = next((file for file in every if heard[file.name].problem), None)
        if bad is not None and self.unreadable == "stop":
            others = sum(bool(each.problem) for each in heard.values()) - 1
            problem = heard[bad.name].problem + (
                f" ({others:,} other sounds too)" if others else ""
            )
            raise DataError(
                str(bad.path), problem, "Mend or remove it, or set data.unreadable: set_aside"
            )
        if not found.tabled:
            kept = [file.label for file in every if not heard[file.name].problem]
            refuse_lost([file.label for file in every], kept, self._name)
        sides: dict[Split, list[Filed]] = {}
        seen: set[str] = set()
        for side in (
            "test",
            "validation",
            "train",
        ):  # what is judged keeps its sounds, and the others lose them
            readable = [file for file in found.files.get(side, ()) if not heard[file.name].problem]
            sides[side] = [file for file in readable if heard[file.name].digest not in seen]
            seen |= {heard[file.name].digest for file in readable}
        if found.named:
            return [(file, side) for side, each in sides.items() for file in each]
        drawn_from = sides["train"]
        keys = [self._keys(file, heard[file.name]) for file in drawn_from]
        drawn = draw(keys, [file.label for file in drawn_from], self._drawing())
        return [*zip(drawn_from, drawn, strict=True), *((file, "test") for file in sides["test"])]

    def _keys(self, file: Filed, heard: _Heard) -> tuple[str, ...]:
        if self.group is None:
            return (f"samples {heard.digest}",)
        found = re.search(self.group, file.name)
        name = None if found is None else (found.group(1) if found.re.groups else found.group())
        if name is None:
            problem = f"data.group {self.group!r} finds nothing in {file.name!r}"
            raise DataError(
                str(file.path), problem, "Correct the expression so that it fits every file"
            )
        return (f"group {name}", f"samples {heard.digest}")

    @property
    def _name(self) -> str:
        return str(self.dataset or self.path)

    @property
    def _label_named(self) -> str | None:
        return None if self.label_column == "label" else self.label_column

    def _files(self) -> _Files:
        if (origin := HubOrigin.of(self)) is not None:
            return self._rows(origin)
        root = Path(str(self.path)).expanduser()
        folders = split_folders(root, SOUND_KINDS, _TABLES)
        if folders.validation is not None and self._changed():
            problem = (
                f"has no effect: the folders train and {folders.validation.name} are the splits"
            )
            raise DataError(
                f"recipe.data.{self._changed()[0]}", problem, "Remove it, or name another folder"
            )
        files: dict[Split, list[Filed]] = {}
        files["train"], loose = self._labelled(folders.train, root)
        if folders.validation is not None:
            files["validation"], more = self._labelled(folders.validation, root)
            loose += more
        tabled = any(_table_of(folder) for folder in folders[:2] if folder is not None)
        return _Files(
            files,
            folders.validation is not None,
            _state_of(root, files),
            tabled,
            folders.unused,
            loose,
        )

    def _rows(self, origin: HubOrigin) -> _Files:
        refuse_idle(self, ("validation_fraction", "folds", "fold", "split_seed"), origin)
        files: dict[Split, list[Filed]] = {}
        for file, name, label, split in origin.files("audio", self.audio_column, self._label_named):
            files.setdefault(split or "train", []).append(Filed(file, name, label))
        tables = origin.tables(self._label_named)
        key = "".join(
            (f"{_FORMAT}", str(self.audio_column), *(table.key for table in tables.values()))
        )
        return _Files(files, "validation" in tables, hashlib.sha256(key.encode()).hexdigest())

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

    def _heard(self, found: _Files, cache: Path) -> dict[str, _Heard]:
        """Return what reading every file told, by its name: from the cache where no file has
        changed since."""
        kept = cache / f"audio-{found.key[:24]}.json"
        if kept.is_file():
            return {name: _Heard(*values) for name, values in json.loads(kept.read_bytes()).items()}
        heard = {file.name: _hear(file.path) for each in found.files.values() for file in each}
        cache.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f"{kept.name}.{os.getpid()}")
        partial.write_text(json.dumps(heard), encoding="utf-8")
        partial.replace(kept)
        return heard


def _state_of(root: Path, files: dict[Split, list[Filed]]) -> str:
    """Return what changes when a file below the root does."""
    key = hashlib.sha256(f"{_FORMAT}\0{root.resolve()}".encode())
    for file in (file for each in files.values() for file in each):
        status = Path(file.path).stat()
        key.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return key.hexdigest()


def _table_of(folder: Path) -> Path | None:
    return next((folder / name for name in _TABLES if (folder / name).is_file()), None)


def _hear(path: Path | StoredFile) -> _Heard:
    try:
        sound = read_sound(path)
    except DataError as error:
        return _Heard(0.0, 0, 0, "", error.problem)
    digest = hashlib.blake2b(
        sound.samples.tobytes(), digest_size=16, key=str(sound.rate).encode()
    ).hexdigest()
    return _Heard(sound.seconds, sound.rate, sound.channels, digest, "")


def _counted(values: Any) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}
