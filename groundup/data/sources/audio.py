"""Sounds with a label each: a folder for every class, a table next to the files, or a Hugging Face
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

from groundup.contracts.data import DataContext, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split, StoredFile
from groundup.data.reading.class_folders import (
    ClassFile,
    base_of,
    class_files,
    named_folders,
)
from groundup.data.reading.files import read_records
from groundup.data.reading.hub_splits import HubOrigin
from groundup.data.reading.source import Source, refuse_idle
from groundup.data.splitting.held_out import (
    SplitRule,
    draw_missing,
    keep_some,
    label_counts,
    leave_out_repeated,
    lengths_of,
    refuse_empty,
    refuse_lost,
    refuse_unknown,
)
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.audio import SOUND_KINDS, read_sound

__all__ = ["Audio"]

# as Hugging Face's AudioFolder has them
_TABLES = ("metadata.csv", "metadata.jsonl")
_FORMAT = 2  # raise it when a file would be described in another way
_SHOWN = 20
_log = logging.getLogger(__name__)


class _SoundFacts(NamedTuple):
    """What reading a file found: ``problem`` is empty where it can be read; ``digest`` is a hash
    of its samples."""

    seconds: float
    rate: int
    channels: int
    digest: str
    problem: str


class _SoundFiles(NamedTuple):
    """The files named for each split; ``key`` changes when what is read does."""

    files: dict[Split, list[ClassFile]]
    key: str
    about: dict[str, Any]
    tabled: bool = False  # a table next to the files says their labels
    unused: tuple[str, ...] = ()
    without_class: int = 0

    @property
    def named(self) -> tuple[Split, ...]:
        """The splits that have files of their own."""
        return tuple(split for split in self.files if split != "train")


@data("audio")
class Audio(Source):
    """Sounds: root/CLASS/*.wav, .flac, .ogg, .mp3, root/metadata.csv (or .jsonl) of file_name and
    label, a hub name.

    Folders ``train``, ``validation`` (or valid, val, dev, eval) and ``test`` below the root are the
    splits. Files with the same samples are always on one side.
    """

    reads_in_order = False
    reads_many_paths = False
    for_files = ("group",)
    for_datasets = ("audio_column",)
    for_drawing = ("folds", "fold", "group")

    audio_column: str | None = setting(
        None, "column of the data set's sounds; silent: found by its type"
    )
    label_column: str = setting(
        "label", "column of the label; of a data set found by its type where none is so called"
    )
    group: str | None = setting(
        None,
        "regular expression searched in a file's path below the root; files for which its first"
        " group, or the whole match, is the same, such as a speaker's, are on one side",
        min_length=1,
    )
    on_unreadable: Literal["stop", "skip"] = setting(
        "stop",
        "files that cannot be read, are empty or hold numbers that are not finite: stop, or leave"
        " them out",
    )
    in_memory: bool = setting(
        True, "keep the features of all sounds; false: read each file when its turn comes"
    )
    folds: int | None = setting(
        None, "cut the files, or groups, into N folds, one of them held out", ge=2
    )
    fold: int = setting(0, "the fold that is held out, from 0", ge=0)

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        if self.group is not None:
            try:
                re.compile(self.group)
            except re.error as error:
                return f"group {self.group!r} is no regular expression: {error}. Correct it"
        return self.rule.problem(self.given("fraction", "fold"))

    @property
    def rule(self) -> SplitRule:
        """How files are held out where none are named."""
        return super().rule._replace(folds=self.folds, fold=self.fold)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        hub = HubOrigin.of(self)
        if hub is not None:
            return self.rule.splits(hub.tables(self._label_named))
        return self.rule.splits(named_folders(self, _TABLES).folders)

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the sounds of a split, sorted by name, or in the order of the rows; inputs are
        paths, or rows.

        Raises:
            DataError: If there are none, a file cannot be read and ``on_unreadable`` is stop, or a
                table is wrong.
        """
        found = self._find_files()
        splits = self._split_files(found, cache)
        if not splits[split]:
            raise refuse_empty(split, self.place, self.rule, found.named)
        if not found.tabled:
            labels = {each: [file.label for file in files] for each, files in splits.items()}
            for each in ("validation", "test"):
                refuse_unknown(labels["train"], labels[each], self.place)
        return [
            Example(
                file.name,
                # text, not a Path, where it is one: what models get of users' own files too
                str(file.path) if isinstance(file.path, Path) else file.path,
                file.label,
                str(file.path),
            )
            for file in splits[split]
        ]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        examples = self.examples(context.split, context.cache)
        if context.split == "train":
            self._warn_of_unreadable(context.cache)
        return open_indexed_stream(examples, context, in_memory=self.in_memory)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return files of each label in each split, lengths, rates and channels, and what was set
        aside."""
        found_files = self._find_files()
        facts = self._read_facts(found_files, cache)
        card = dict(found_files.about)
        splits = self.rule.splits(found_files.named)
        for split in splits:
            found = self.examples(split, cache)
            seconds = [facts[example.name].seconds for example in found]
            card[split] = (
                label_counts(found)
                | {"seconds": round(sum(seconds), 1)}
                | lengths_of(seconds, "seconds")
            )
        read = [each for each in facts.values() if not each.problem]
        bad = {name: each.problem for name, each in sorted(facts.items()) if each.problem}
        return card | {
            "sample_rates": _count_values(each.rate for each in read),
            "channels": _count_values(each.channels for each in read),
            "several_channels": "averaged",
            "same_as_held_out": len(read) - sum(card[split]["examples"] for split in splits),
            "same_samples": len(read) - len({each.digest for each in read}),
            "kept_together": self.group or "files with the same samples",
            "without_class": found_files.without_class,
            "folders_not_used": list(found_files.unused),
            "set_aside": len(bad),
            "set_aside_files": dict(list(bad.items())[:_SHOWN]),
        }

    def _warn_of_unreadable(self, cache: Path) -> None:
        facts = self._read_facts(self._find_files(), cache)
        if bad := sorted(name for name, each in facts.items() if each.problem):
            named = ", ".join(bad[:_SHOWN])
            _log.warning(
                f"{self.place}: {len(bad):,} sounds that cannot be used are left out: {named}"
            )

    def _split_files(self, found: _SoundFiles, cache: Path) -> dict[Split, list[ClassFile]]:
        """Return the files of each split that can be read."""
        facts = self._read_facts(found, cache)
        every = [file for each in found.files.values() for file in each]
        bad = next((file for file in every if facts[file.name].problem), None)
        if bad is not None and self.on_unreadable == "stop":
            others = sum(bool(each.problem) for each in facts.values()) - 1
            problem = facts[bad.name].problem
            if others:
                problem += f" ({others:,} other sounds too)"
            remedy = "Fix or remove it, or set data.on_unreadable: skip"
            raise DataError(str(bad.path), problem, remedy)
        readable = {
            split: [file for file in files if not facts[file.name].problem]
            for split, files in found.files.items()
        }
        if not found.tabled:
            kept = [file.label for files in readable.values() for file in files]
            refuse_lost([file.label for file in every], kept, self.place)
        # by samples, not bytes: the same sound may be kept as .wav and .flac
        leave_out_repeated(readable, lambda file: [facts[file.name].digest])
        return draw_missing(
            readable,
            found.named,
            lambda file: self._keys_of(file, facts[file.name]),
            lambda file: file.label,
            self.rule,
        )

    def _keys_of(self, file: ClassFile, facts: _SoundFacts) -> tuple[str, ...]:
        if self.group is None:
            return (f"samples {facts.digest}",)
        found = re.search(self.group, file.name)
        name = found.group(min(found.re.groups, 1)) if found is not None else None
        if name is None:
            problem = f"data.group {self.group!r} finds nothing in {file.name!r}"
            raise DataError(
                str(file.path), problem, "Correct the expression so that it fits every file"
            )
        return (f"group {name}", f"samples {facts.digest}")

    @property
    def _label_named(self) -> str | None:
        return None if self.label_column == "label" else self.label_column

    def _find_files(self) -> _SoundFiles:
        hub = HubOrigin.of(self)
        if hub is not None:
            return self._find_rows(hub)
        root = Path(str(self.path)).expanduser()
        folders, unused = named_folders(self, _TABLES)
        files: dict[Split, list[ClassFile]] = {}
        without_class = 0
        for split, folder in folders.items():
            own, loose = self._label_files(folder, base_of(folder, root))
            files[split] = keep_some(own, self.limit, self.seed)
            without_class += loose
        return _SoundFiles(
            files,
            _state_of(root, files),
            {"source": self.path, "licence": self.licence or "not stated"},
            any(_table_of(folder) for folder in folders.values()),
            unused,
            without_class,
        )

    def _find_rows(self, hub: HubOrigin) -> _SoundFiles:
        files: dict[Split, list[ClassFile]] = {}
        for file, name, label, split in hub.files("audio", self.audio_column, self._label_named):
            files.setdefault(split, []).append(ClassFile(file, name, label))
        files = {split: own[: self.limit] for split, own in files.items()}
        refuse_idle(self, tuple(files), "a split")
        tables = hub.tables(self._label_named)
        key = "".join(
            (f"{_FORMAT}", str(self.audio_column), *(table.key for table in tables.values()))
        )
        digest = hashlib.sha256(f"{key}{self.limit or ''}".encode()).hexdigest()
        return _SoundFiles(files, digest, hub.about(tables))

    def _label_files(self, folder: Path, root: Path) -> tuple[list[ClassFile], int]:
        table = _table_of(folder)
        if table is None:
            return class_files(folder, SOUND_KINDS, root)
        found: dict[Path, ClassFile] = {}
        for record in read_records(table, columns=("file_name", self.label_column)):
            path = folder / str(record.fields["file_name"])
            label = record.fields[self.label_column]
            problem = ""
            if not path.is_file():
                problem = f"there is no file {path}"
            elif path in found:
                problem = f"{record.fields['file_name']} has a row already"
            elif label in (None, ""):
                problem = f"{record.fields['file_name']} has no label"
            if problem:
                raise DataError(record.origin, problem, "Correct the row, or remove it")
            found[path] = ClassFile(path, Path(os.path.relpath(path, root)).as_posix(), label)
        # files next to the table that it does not name, for the card
        inside = sum(p.suffix.lower() in SOUND_KINDS and p not in found for p in folder.rglob("*"))
        return sorted(found.values(), key=lambda file: file.name), inside

    def _read_facts(self, found: _SoundFiles, cache: Path) -> dict[str, _SoundFacts]:
        """Return what reading every file found, by its name: from the cache where no file has
        changed since."""
        kept = cache / f"audio-{found.key[:24]}.json"
        if kept.is_file():
            saved = json.loads(kept.read_bytes())
            return {name: _SoundFacts(*values) for name, values in saved.items()}
        facts = {file.name: _read_fact(file.path) for each in found.files.values() for file in each}
        cache.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f"{kept.name}.{os.getpid()}")
        partial.write_text(json.dumps(facts), encoding="utf-8")
        # renamed when complete, because two runs may start on the same data
        partial.replace(kept)
        return facts


def _state_of(root: Path, files: dict[Split, list[ClassFile]]) -> str:
    """Return what changes when a file below the root does."""
    # The folder's place is part of it: two folders may hold files of the same names, sizes and
    # times.
    key = hashlib.sha256(f"{_FORMAT}\0{root.resolve()}".encode())
    for file in (file for each in files.values() for file in each):
        status = Path(file.path).stat()
        key.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return key.hexdigest()


def _table_of(folder: Path) -> Path | None:
    return next((folder / name for name in _TABLES if (folder / name).is_file()), None)


def _read_fact(path: Path | StoredFile) -> _SoundFacts:
    try:
        sound = read_sound(path)
    except DataError as error:
        return _SoundFacts(0.0, 0, 0, "", error.problem)
    digest = hashlib.blake2b(
        sound.samples.tobytes(), digest_size=16, key=str(sound.rate).encode()
    ).hexdigest()
    return _SoundFacts(sound.seconds, sound.rate, sound.channels, digest, "")


def _count_values(values: Any) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}
