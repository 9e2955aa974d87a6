"""Sounds with what is said in them: folders with transcripts in any of the usual forms, or a
Hugging Face data set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.cleaning.transcripts import Spelling, spell
from groundup.data.reading.class_folders import group_in_name, problem_with_pattern
from groundup.data.reading.hub_splits import HubOrigin
from groundup.data.reading.listing import NOT_USED
from groundup.data.reading.placement import group_of
from groundup.data.reading.sound_facts import (
    SoundFacts,
    count_values,
    read_sound_facts,
    state_of_files,
)
from groundup.data.reading.source import Source, as_list, refuse_idle
from groundup.data.reading.speech_card import (
    count_left_out,
    describe_sounds,
    describe_unknown,
    left_out_of,
    notes_of,
    warn_of_unknown,
)
from groundup.data.reading.speech_folders import Form, read_transcripts
from groundup.data.reading.speech_hub import read_hub_speech
from groundup.data.reading.unlabelled import read_files
from groundup.data.reading.unreadable import refuse_unreadable, warn_of_unreadable
from groundup.data.reading.utterances import SpeechColumns, Transcripts, Utterance, shown
from groundup.data.splitting.by_folder import by_split
from groundup.data.splitting.drawing import SplitRule
from groundup.data.splitting.held_out import (
    draw_missing,
    keep_some,
    leave_out_repeated,
    refuse_empty,
)
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.data.stream.row_order import similar_lengths_setting
from groundup.media.audio import SOUND_KINDS

__all__ = ["Speech"]


@dataclass
class _Found:
    """What is read: the utterances of each split that has some of its own, and what is said of
    them; ``key`` changes when a sound does."""

    transcripts: Transcripts
    splits: dict[Split, list[Utterance]]
    key: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def named(self) -> tuple[Split, ...]:
        """The splits besides training that have utterances of their own."""
        return tuple(split for split in ("validation", "test") if self.splits.get(split))


@data("speech")
class Speech(Source):
    """Speech with transcripts: metadata.csv or .jsonl, a .txt next to each sound, LibriSpeech,
    LJSpeech, Common Voice, Kaldi; .wav, .flac, .ogg, .mp3 of any rate; a hub name.

    Folders and tables called train, validation (valid, val, dev, eval) and test are the splits.
    Where it is known who speaks, nobody is on both sides; the same sound never is.
    """

    reads_in_order = False
    has_columns = True
    for_files = ("group", "form")
    for_drawing = ("folds", "fold", "group", "by_speaker")

    form: Form | None = setting(
        None, "form of the transcripts; silent: recognised by the files' names"
    )
    audio_column: str | None = setting(
        None, "column of the sounds in tables; silent: file_name, path, audio or the like"
    )
    text_column: str | None = setting(
        None, "column of the transcripts; silent: text, transcription, sentence or the like"
    )
    spelling: Spelling = setting(
        "as_written",
        "transcripts as they are written, in lower case, or as lower-case letters and digits"
        " without punctuation",
    )
    max_seconds: float | None = setting(
        30.0, "longer sounds are left out, and counted; null: none is", gt=0
    )
    by_speaker: bool = setting(
        True,
        "where the transcripts say who speaks, all that somebody says is on one side",
        # With a group of one's own speakers do not matter.
        applies_when={"group": (None,), "group_column": (None,)},
    )
    group: str | None = setting(
        None,
        "regular expression searched in a sound's name; sounds for which its first group, or the"
        " whole match, is the same, such as a reader's, are on one side",
        min_length=1,
    )
    in_memory: bool = setting(
        True, "keep the features of all sounds; false: read each file when its turn comes"
    )
    similar_lengths: bool = similar_lengths_setting("sounds", default=True)
    folds: int | None = setting(
        None, "cut the sounds, or groups, into N folds, one of them held out", ge=2
    )
    fold: int = setting(0, "the fold that is held out, from 0", ge=0)

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        if self.time_column is not None:
            return "time_column has no effect: speech is not held out by time. Remove it"
        if self.group is not None and self.group_column is not None:
            return "group has no effect with group_column. Remove one of them"
        return problem_with_pattern(self.group) or self.rule.problem(self.given("fraction", "fold"))

    @property
    def rule(self) -> SplitRule:
        """How sounds are held out where none are named."""
        return super().rule._replace(folds=self.folds, fold=self.fold)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        return self.rule.splits(self._find().named)

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the sounds of a split with their transcripts, in the order of the files or rows;
        inputs are paths, or rows.

        Raises:
            DataError: If there are none, transcripts cannot be read, or a sound cannot and
                ``on_unreadable`` is stop.
        """
        found = self._find()
        own = self._divide(found, self._read_facts(found, cache))[split]
        if not own:
            groups = self._groups(found)
            drawn = {key for each in found.splits.get("train", []) for key in groups(each)}
            raise refuse_empty(split, self.place, self.rule, found.named, drawn, "speaker")
        return [
            Example(
                each.name,
                # text, not a Path, where it is one: what models get of users' own files too
                str(each.sound) if isinstance(each.sound, Path) else each.sound,
                each.text,
                str(each.sound),
            )
            for each in own
        ]

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        hub = HubOrigin.of(self)
        if hub is not None:
            return hub.contents()
        found = self._find()
        sounds = {
            f"{split}/{each.name}": each.file for split, own in found.splits.items() for each in own
        }
        return {**found.transcripts.files, **sounds}

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the sounds of a folder, or those that the rows of a file name; see
        ``DataSource.unlabelled``."""
        return read_files(path, SOUND_KINDS, self.audio_column)

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        found = self._find()
        facts = self._read_facts(found, context.cache)
        examples = self.examples(context.split, context.cache)
        if context.split == "train":
            bad = [name for name, each in facts.items() if each.problem]
            warn_of_unreadable(self.place, bad, "sounds")
        # By the sounds alone: frames are many times as many as tokens, and these go with them.
        lengths = np.array([[round(100 * facts[each.name].seconds)] for each in examples], np.int64)
        return open_indexed_stream(
            examples,
            context,
            in_memory=self.in_memory,
            similar_lengths=self.similar_lengths,
            lengths=lengths,
        )

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many sounds each split has and how long they and their transcripts are, what
        was left out and why, rates and channels, and the licence."""
        found = self._find()
        facts = self._read_facts(found, cache)
        sides = self._divide(found, facts)
        card = found.about | {"form": found.transcripts.form}
        read = [each for each in facts.values() if not each.problem]
        card["sample_rates"] = count_values(each.rate for each in read)
        card["channels"] = count_values(each.channels for each in read)
        left_out = left_out_of(found.transcripts, facts, self.max_seconds)
        card["left_out"] = count_left_out(left_out) | dict(sorted((+found.left_out).items()))
        card["kept_together"] = self._kept_together(found)
        warnings = self._notes(found, facts)
        for split in self.rule.splits(found.named):
            card[split] = describe_sounds(sides[split], facts)
            if split != "train":
                card[split] |= describe_unknown(sides[split], sides["train"])
                warnings += warn_of_unknown(split, card[split])
        if warnings:
            card["warnings"] = warnings
        return card

    # -------------------------------------------------------------------------------------- reading
    @property
    def _columns(self) -> SpeechColumns:
        return SpeechColumns(self.audio_column, self.text_column, self.split_column)

    def _find(self) -> _Found:
        """Read all transcripts, and no sound."""
        hub = HubOrigin.of(self)
        if hub is not None:
            transcripts, key, about = read_hub_speech(hub, self._columns)
            found = _Found(transcripts, {}, about=about)
            for each in transcripts.found:
                found.splits.setdefault(each.split or "train", []).append(each)
        else:
            found = self._find_files()
            key = ""
        # Only once all are there, because what nobody hears may be all that some hold.
        found.splits = {split: self._spelt(found, own) for split, own in found.splits.items()}
        refuse_idle(self, found.named, "sounds")
        for split, own in found.splits.items():
            found.splits[split] = keep_some(own, self.limit, self.seed)
            found.left_out["beyond data.limit"] += len(own) - len(found.splits[split])
        every = [each for own in found.splits.values() for each in own]
        if hub is None:
            key = state_of_files(Path(self.place), ((f"{e.name} {e.sound}", e.file) for e in every))
        found.key = hashlib.sha256(f"speech {key} {self.limit or ''}".encode()).hexdigest()
        if not every:
            left_out = found.transcripts.left_out().items()
            lines = "; ".join(f"{len(names):,} {why}: {shown(names)}" for why, names in left_out)
            raise DataError(
                self.place,
                f"no sound has a transcript: {lines or 'there are none'}",
                "Correct the names, or data.audio_column, so that they are those of the files",
            )
        return found

    def _spelt(self, found: _Found, own: Sequence[Utterance]) -> list[Utterance]:
        spelt = [each._replace(text=spell(each.text, self.spelling)) for each in own]
        found.transcripts.without_words += [each.name for each in spelt if not each.text]
        return [each for each in spelt if each.text]

    def _find_files(self) -> _Found:
        every = Transcripts("")
        sides: dict[Split, list[Utterance]] = {}
        listed: Counter[str] = Counter()
        paths = as_list(self.path)
        for path in paths:
            own, left_out = self._read_path(path)
            if len(paths) > 1:  # names are unique in a source, and two folders may share one
                own.found = [e._replace(name=f"{path}/{e.name}") for e in own.found]
                own.files = {f"{path}/{name}": file for name, file in own.files.items()}
            every.merge(own)
            listed += left_out
            for split, part in by_split(own.found).items():
                sides.setdefault(split, []).extend(part)
        # What is named in the recipe comes before what is called so.
        held_out: dict[Split, Any] = {"validation": self.validation, "test": self.test}
        for split, named in held_out.items():
            if isinstance(named, str | list):
                listed[NOT_USED] += len(sides.pop(split, []))
                sides[split] = []
                for path in as_list(named):
                    own, left_out = self._read_path(path)
                    own.found = [e._replace(name=f"{split}/{e.name}") for e in own.found]
                    own.files = {f"{split}/{name}": file for name, file in own.files.items()}
                    every.merge(own)
                    listed += left_out
                    sides[split] += own.found
                # It may be within the path that is trained on.
                there = {each.sound for each in sides[split]}
                for other in set(sides) - {split}:
                    sides[other] = [each for each in sides[other] if each.sound not in there]
        about: dict[str, Any] = {"source": self.place, "licence": self.licence or "not stated"}
        return _Found(every, sides, about=about, left_out=+listed)

    def _read_path(self, path: str) -> tuple[Transcripts, Counter[str]]:
        own, listing = read_transcripts(
            path,
            self.form,
            self._columns,
            encoding=self.encoding,
            on_unreadable=self.on_unreadable,
        )
        return own, listing.left_out

    def _read_facts(self, found: _Found, cache: Path) -> dict[str, SoundFacts]:
        sounds = {each.name: each.sound for own in found.splits.values() for each in own}
        return read_sound_facts(sounds, found.key, cache)

    # ------------------------------------------------------------------------------------- dividing
    def _divide(
        self, found: _Found, facts: Mapping[str, SoundFacts]
    ) -> dict[Split, list[Utterance]]:
        """Return the utterances of each split whose sounds can be read and are not too long."""
        every = [each for own in found.splits.values() for each in own]
        looked = ((str(each.sound), facts[each.name].problem) for each in every)
        bad = [(where, problem) for where, problem in looked if problem]
        refuse_unreadable(bad, "sounds", self.on_unreadable)
        kept = {
            split: [each for each in own if self._is_used(facts[each.name])]
            for split, own in found.splits.items()
        }
        if not any(kept.values()):
            raise DataError(
                self.place,
                f"none of {len(every):,} sounds can be used: all are unreadable or longer than"
                f" max_seconds {self.max_seconds}",
                "Check the files, raise data.max_seconds, or cut the recordings into utterances",
            )
        leave_out_repeated(kept, lambda each: [facts[each.name].digest])
        groups = self._groups(found)
        return draw_missing(
            kept,
            found.named,
            lambda each: (*groups(each), f"samples {facts[each.name].digest}"),
            lambda each: None,
            self.rule,
        )

    def _is_used(self, facts: SoundFacts) -> bool:
        return not facts.problem and (self.max_seconds is None or facts.seconds <= self.max_seconds)

    def _groups(self, found: _Found) -> Any:
        """Return what says with what a sound belongs together, besides the same sound."""
        pattern, column = self.group, self.group_column
        if pattern is not None:
            return lambda each: [group_in_name(pattern, each.name, str(each.sound))]
        if column is not None:
            return lambda each: [f"group {_in_column(each, column)}"]
        if self._speakers(found) > 1:
            return lambda each: [f"group {each.speaker}"]
        return lambda each: []

    def _speakers(self, found: _Found) -> int:
        """Return how many people speak, by whom sounds are held out; 0 where they are not."""
        if not self.by_speaker:
            return 0
        speakers = {each.speaker for each in found.splits.get("train", [])}
        # One that nobody is named for could be anybody.
        return 0 if "" in speakers else len(speakers)

    def _notes(self, found: _Found, facts: Mapping[str, SoundFacts]) -> list[str]:
        texts = {each.name: each.text for own in found.splits.values() for each in own}
        return notes_of(found.transcripts, facts, self.max_seconds, texts)

    def _kept_together(self, found: _Found) -> str:
        if self.group or self.group_column:
            return f"{self.group or self.group_column}, and the same samples"
        speakers = self._speakers(found)
        if speakers > 1:
            return f"each of {speakers:,} speakers, and the same samples"
        return "the same samples"


def _in_column(each: Utterance, column: str) -> str:
    if column not in each.columns:
        known = ", ".join(map(str, each.columns)) or "none"
        raise DataError(
            each.origin,
            f"there is no column {column!r}; columns: {known}",
            "Correct data.group_column",
        )
    return group_of(each.columns[column], each.origin, column)
