"""Sounds with a label each: a folder for every class, a table next to the files, or a Hugging Face
data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.reading.class_folders import (
    ClassFile,
    ClassFiles,
    contents_of,
    find_class_files,
    group_in_name,
    problem_with_pattern,
)
from groundup.data.reading.hub_splits import HubOrigin
from groundup.data.reading.label_table import read_label_table, tables_of_labels
from groundup.data.reading.listing import leave_out
from groundup.data.reading.sound_facts import (
    SoundFacts,
    count_values,
    read_sound_facts,
    state_of_files,
)
from groundup.data.reading.source import Source, refuse_idle
from groundup.data.reading.unlabelled import read_files
from groundup.data.reading.unreadable import refuse_unreadable, warn_of_unreadable
from groundup.data.splitting.drawing import SplitRule
from groundup.data.splitting.held_out import (
    draw_missing,
    label_counts,
    leave_out_repeated,
    lengths_of,
    refuse_empty,
    refuse_lost,
    refuse_unknown,
    warn_of_other_labels,
)
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.audio import SOUND_KINDS

__all__ = ["Audio"]

_FORMAT = 2  # raise it when a file would be described in another way
_SHOWN = 20


class _SoundFiles(NamedTuple):
    """The files named for each split; ``key`` changes when what is read does."""

    files: dict[Split, list[ClassFile]]
    key: str
    about: dict[str, Any]
    tabled: bool = False  # a table next to the files says their labels

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
    has_labels = True
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
    in_memory: bool = setting(
        True, "keep the features of all sounds; false: read each file when its turn comes"
    )
    folds: int | None = setting(
        None, "cut the files, or groups, into N folds, one of them held out", ge=2
    )
    fold: int = setting(0, "the fold that is held out, from 0", ge=0)

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        return problem_with_pattern(self.group) or self.rule.problem(self.given("fraction", "fold"))

    @property
    def rule(self) -> SplitRule:
        """How files are held out where none are named."""
        return super().rule._replace(folds=self.folds, fold=self.fold)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        hub = HubOrigin.of(self)
        if hub is not None:
            return self.rule.splits(hub.tables(self._label_named))
        return self.rule.splits(self._find_labelled().named)

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

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        hub = HubOrigin.of(self)
        if hub is not None:
            return hub.contents()
        return contents_of(self._find_files().files) | tables_of_labels(Path(self.place))

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the sounds of a folder, or of the rows of a file; see
        ``DataSource.unlabelled``."""
        return read_files(path, SOUND_KINDS, self.audio_column)

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
        labels = {file.name: file.label for own in found_files.files.values() for file in own}
        digests = {name: each.digest for name, each in facts.items() if not each.problem}
        if warning := warn_of_other_labels(digests, labels, "sounds"):
            card["warnings"] = [*card.get("warnings", ()), warning]
        bad = {name: each.problem for name, each in sorted(facts.items()) if each.problem}
        if "files" in card:
            leave_out(card["files"], "unreadable", len(bad))
        return card | {
            "sample_rates": count_values(each.rate for each in read),
            "channels": count_values(each.channels for each in read),
            "several_channels": "averaged",
            "same_as_held_out": len(read) - sum(card[split]["examples"] for split in splits),
            "same_samples": len(read) - len({each.digest for each in read}),
            "kept_together": self.group or "files with the same samples",
            "set_aside": len(bad),
            "set_aside_files": dict(list(bad.items())[:_SHOWN]),
        }

    def _warn_of_unreadable(self, cache: Path) -> None:
        facts = self._read_facts(self._find_files(), cache)
        bad = [name for name, each in facts.items() if each.problem]
        warn_of_unreadable(self.place, bad, "sounds")

    def _split_files(self, found: _SoundFiles, cache: Path) -> dict[Split, list[ClassFile]]:
        """Return the files of each split that can be read."""
        facts = self._read_facts(found, cache)
        every = [file for each in found.files.values() for file in each]
        looked = ((str(file.path), facts[file.name].problem) for file in every)
        bad = [(where, problem) for where, problem in looked if problem]
        refuse_unreadable(bad, "sounds", self.on_unreadable)
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

    def _keys_of(self, file: ClassFile, facts: SoundFacts) -> tuple[str, ...]:
        if self.group is None:
            return (f"samples {facts.digest}",)
        group = group_in_name(self.group, file.name, str(file.path))
        return (group, f"samples {facts.digest}")

    @property
    def _label_named(self) -> str | None:
        return None if self.label_column == "label" else self.label_column

    def _find_files(self) -> _SoundFiles:
        hub = HubOrigin.of(self)
        if hub is not None:
            return self._find_rows(hub)
        found = self._find_labelled()
        every = [(file.name, Path(file.path)) for own in found.files.values() for file in own]
        state = state_of_files(Path(self.place), every)
        return _SoundFiles(found.files, state, found.about(self), found.tabled)

    def _find_labelled(self) -> ClassFiles:
        labels = partial(read_label_table, label_column=self.label_column)
        return find_class_files(self, SOUND_KINDS, read_labels=labels)

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

    def _read_facts(self, found: _SoundFiles, cache: Path) -> dict[str, SoundFacts]:
        """Return what reading every file found, by its name: from the cache where no file has
        changed since."""
        sounds = {file.name: file.path for each in found.files.values() for file in each}
        return read_sound_facts(sounds, found.key, cache)
