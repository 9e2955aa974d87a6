"""Pictures with captions, or pairs of pictures: folders, tables, WebDataset's archives, or a
Hugging Face data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.reading.caption_card import describe_captions, state_of_pictures
from groundup.data.reading.caption_folders import PICTURE_KINDS, CaptionForm, CaptionReader
from groundup.data.reading.caption_hub import read_hub_captions
from groundup.data.reading.captions import CaptionColumns, Captioned, Captions
from groundup.data.reading.class_folders import group_in_name, problem_with_pattern
from groundup.data.reading.hub_splits import HubOrigin
from groundup.data.reading.listing import NOT_USED
from groundup.data.reading.picture_facts import Check, PictureFacts, read_picture_facts
from groundup.data.reading.source import Source, as_list, refuse_idle
from groundup.data.reading.tar_members import expand_braces
from groundup.data.reading.unlabelled import read_files
from groundup.data.reading.unreadable import refuse_unreadable, warn_of_unreadable
from groundup.data.reading.utterances import shown
from groundup.data.splitting.by_folder import by_split
from groundup.data.splitting.held_out import (
    draw_missing,
    keep_some,
    leave_out_repeated,
    refuse_empty,
)
from groundup.data.stream.in_memory import open_in_memory_if_small

__all__ = ["CaptionedImages"]

_NAMED = 20  # pictures left out that the data card names


@dataclass
class _Found:
    """What is read: the pictures of each split that has some of its own, and what is said of
    them."""

    captions: Captions
    splits: dict[Split, list[Captioned]]
    key: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def named(self) -> tuple[Split, ...]:
        """The splits besides training that have pictures of their own."""
        return tuple(split for split in ("validation", "test") if self.splits.get(split))

    @property
    def every(self) -> list[Captioned]:
        """All of them."""
        return [each for own in self.splits.values() for each in own]


@data("captioned_images")
class CaptionedImages(Source):
    """Pictures with captions: metadata.csv or .jsonl, a .txt next to each picture, WebDataset's
    .tar, or a data set. With ``second_image_column`` pairs of pictures, with captions or without.

    Folders, tables and archives called train, validation (valid, val, dev, eval) and test are the
    splits. A picture with several captions is an example of each, on one side; so are copies.
    """

    reads_in_order = False
    has_columns = True
    for_files = ("group", "form", "language")
    for_drawing = ("group",)

    form: CaptionForm | None = setting(
        None, "form of the captions; silent: recognised by the files' names"
    )
    image_column: str | None = setting(
        None,
        "column of the pictures, or part of names in archives such as jpg; silent: file_name, image"
        " or the like",
    )
    second_image_column: str | None = setting(
        None, "column, or part of names, of the second picture of pairs; silent: single pictures"
    )
    text_column: str | None = setting(
        None,
        "column of the captions, part of names such as txt, or key of an archive's JSON; silent:"
        " text, caption or the like",
    )
    language: str | None = setting(
        None,
        "of .txt files with lines such as fr.utf8=..., as Tux Paint's stamps have them: the"
        " language that is read; silent: the first line",
        min_length=2,
    )
    on_missing: Literal["stop", "skip"] = setting(
        "stop",
        "pictures without a caption, and captions without a picture: an error, or left out and"
        " counted",
    )
    group: str | None = setting(
        None,
        "regular expression searched in a picture's name; pictures for which its first group, or"
        " the whole match, is the same are on one side",
        min_length=1,
    )
    check: Check = setting(
        "auto",
        "what is looked at before training: each picture decoded, or its header and the end of its"
        " file; auto: decoded up to 50,000 pictures",
    )
    in_memory: Literal["auto", True, False] = setting(
        "auto",
        "decode all pictures at the start and keep them, or each when needed; auto: keep them up to"
        " 1 GiB",
    )

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        if self.time_column is not None:
            return "time_column has no effect: pictures are not held out by time. Remove it"
        if self.group is not None and self.group_column is not None:
            return "group has no effect with group_column. Remove one of them"
        if self.image_column is not None and self.image_column == self.second_image_column:
            return "second_image_column is image_column. Name another"
        if self.language is not None and self.form not in (None, "text_files"):
            return f"language has no effect with form {self.form}. Remove language"
        return problem_with_pattern(self.group)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        return self.rule.splits(self._find().named)

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the pictures of a split with their captions, in the order of the files or rows;
        inputs are a picture, or a tuple of two.

        Raises:
            DataError: If there are none, captions cannot be read, a picture has none and
                ``on_missing`` is stop, or one cannot be read and ``on_unreadable`` is.
        """
        found = self._find()
        own = self._divide(found, self._read_facts(found, cache))[split]
        if not own:
            drawn = {key for each in found.splits.get("train", []) for key in self._groups(each)}
            raise refuse_empty(split, self.place, self.rule, found.named, drawn)
        examples = []
        times: Counter[str] = Counter()
        for each in own:
            times[each.name] += 1
            # Names are unique in a source, and a picture may have several captions.
            name = each.name
            if times[name] > 1:
                name = f"{name}#{times[name]}"
            inputs = each.pictures if each.second is not None else each.picture
            examples.append(Example(name, inputs, each.text, str(each.picture)))
        return examples

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        hub = HubOrigin.of(self)
        if hub is not None:
            return hub.contents()
        found = self._find()
        # Those in archives are told by the archives, which are among the files.
        pictures = {
            f"{split}/{each.name}{' second' * number}": picture
            for split, own in found.splits.items()
            for each in own
            for number, picture in enumerate(each.pictures)
            if isinstance(picture, Path)
        }
        return {**found.captions.files, **pictures}

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the pictures of a folder, or those that the rows of a file name; see
        ``DataSource.unlabelled``."""
        return read_files(path, PICTURE_KINDS, self.image_column)

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        examples = self.examples(context.split, context.cache)
        # Not where none can be: captions are read once more for it.
        if context.split == "train" and self.on_unreadable == "skip":
            problems = self._read_facts(self._find(), context.cache).problems
            warn_of_unreadable(self.place, problems, "pictures")
        return open_in_memory_if_small(examples, context, self.in_memory)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many pictures each split has, how long their captions are, what was left out
        and why, and the licence."""
        found = self._find()
        facts = self._read_facts(found, cache)
        sides = self._divide(found, facts)
        card = found.about | {"form": found.captions.form, "sizes": facts.describe_sizes()}
        left_out = found.captions.lacking()
        if facts.problems:
            named = [f"{name} ({problem})" for name, problem in sorted(facts.problems.items())]
            left_out["pictures that cannot be read"] = named
        card["left_out"] = {
            reason: {"count": len(names), "first": names[:_NAMED]}
            for reason, names in left_out.items()
        } | dict(sorted((+found.left_out).items()))
        if found.captions.unread:
            card["not_read"] = dict(sorted(found.captions.unread.items()))
        card["kept_together"] = f"{self.group or self.group_column or 'each picture'}, and copies"
        for split in self.rule.splits(found.named):
            card[split] = describe_captions(sides[split])
        notes = [
            f"{len(names):,} {reason} are left out: {shown(names)}"
            for reason, names in left_out.items()
        ]
        if warnings := [*found.captions.warnings, *notes]:
            card["warnings"] = warnings
        return card

    # -------------------------------------------------------------------------------------- reading
    @property
    def _columns(self) -> CaptionColumns:
        return CaptionColumns(
            self.image_column,
            self.second_image_column,
            self.text_column,
            self.split_column,
            self.group_column,
        )

    def _find(self) -> _Found:
        """Read all captions, and no picture."""
        # A data set says itself which rows are of which split.
        hub = HubOrigin.of(self)
        if hub is None:
            found = self._find_files()
        else:
            captions, key, about = read_hub_captions(hub, self._columns)
            found = _Found(captions, {}, key, about)
            for each in captions.found:
                found.splits.setdefault(each.split or "train", []).append(each)
        # Before anything is drawn: what is missing is a mistake more often than not.
        self._refuse_lacking(found)
        for split, own in found.splits.items():
            # Said twice it would count twice, and of two sides be on both.
            unique: dict[Any, Captioned] = {}
            for each in own:
                unique.setdefault((each.pictures, each.text), each)
            new = list(unique.values())
            found.left_out["the same picture and caption again"] += len(own) - len(new)
            found.splits[split] = keep_some(new, self.limit, self.seed)
            found.left_out["beyond data.limit"] += len(new) - len(found.splits[split])
        refuse_idle(self, found.named, "pictures")
        if hub is None:
            found.key = state_of_pictures(found.every)
        return found

    def _refuse_lacking(self, found: _Found) -> None:
        """Raise an error for pictures without captions and the other way round, unless they are to
        be left out, or nothing would be left."""
        lacking = found.captions.lacking()
        lines = "; ".join(
            f"{len(names):,} {reason}: {shown(names)}" for reason, names in lacking.items()
        )
        if not found.every:
            raise DataError(
                self.place,
                f"no picture has a caption: {lines or 'there are none'}",
                "Correct the names, or data.image_column, so that they are those of the files",
            )
        if lacking and self.on_missing == "stop":
            raise DataError(
                self.place,
                lines,
                "Add what is missing, or set data.on_missing: skip to leave such out",
            )

    def _find_files(self) -> _Found:
        every = Captions("")
        sides: dict[Split, list[Captioned]] = {}
        listed: Counter[str] = Counter()
        paths = [one for path in as_list(self.path) for one in expand_braces(path)]
        for path in paths:
            own, left_out = self._read_path(path, _prefix_of(path) if len(paths) > 1 else "")
            every.merge(own)
            listed += left_out
        for split, part in by_split(every.found).items():
            sides.setdefault(split, []).extend(part)
        # What is named in the recipe comes before what is called so.
        held_out: dict[Split, Any] = {"validation": self.validation, "test": self.test}
        for split, named in held_out.items():
            if not isinstance(named, str | list):
                continue
            listed[NOT_USED] += len(sides.pop(split, []))
            sides[split] = []
            for path in (one for each in as_list(named) for one in expand_braces(each)):
                own, left_out = self._read_path(path, f"{split}/{_prefix_of(path)}")
                sides[split] += own.found
                every.merge(own)
                listed += left_out
            # It may be within the path that is trained on.
            there = {picture for each in sides[split] for picture in each.pictures}
            for other in set(sides) - {split}:
                sides[other] = [e for e in sides[other] if there.isdisjoint(e.pictures)]
        about = {"source": self.place, "licence": self.licence or "not stated"}
        return _Found(every, sides, "", about, +listed)

    def _read_path(self, path: str, prefix: str) -> tuple[Captions, Counter[str]]:
        reader = CaptionReader(
            self.form, self._columns, self.language, self.encoding, self.on_unreadable
        )
        read, listing = reader.read(path)
        own = Captions("")
        own.merge(read, prefix)
        return own, listing.left_out

    def _read_facts(self, found: _Found, cache: Path) -> PictureFacts:
        # A picture with several captions is looked at once.
        pictures = {
            _name_of(each, number): picture
            for each in found.every
            for number, picture in enumerate(each.pictures)
        }
        key = f"captioned {found.key}".encode()
        return read_picture_facts(
            list(pictures), list(pictures.values()), key, cache, check=self.check
        )

    # ------------------------------------------------------------------------------------- dividing
    def _divide(self, found: _Found, facts: PictureFacts) -> dict[Split, list[Captioned]]:
        """Return the pictures of each split that can be read."""

        def is_read(each: Captioned) -> bool:
            names = (_name_of(each, number) for number in range(len(each.pictures)))
            return facts.problems.keys().isdisjoint(names)

        bad = [each for each in found.every if not is_read(each)]
        problems = [(f"{self.place}: {name}", words) for name, words in facts.problems.items()]
        refuse_unreadable(problems, "pictures", self.on_unreadable)
        kept = {split: [e for e in own if is_read(e)] for split, own in found.splits.items()}
        if not any(kept.values()):
            raise DataError(
                self.place, f"none of {len(bad):,} pictures can be read", "Check the files"
            )

        def copies(each: Captioned) -> list[str]:
            names = (_name_of(each, number) for number in range(len(each.pictures)))
            return [facts.digests[name] for name in names if name in facts.digests]

        leave_out_repeated(kept, lambda each: [*map(str, each.pictures), *copies(each)])
        return draw_missing(
            kept,
            found.named,
            lambda each: (*self._groups(each), *copies(each)),
            lambda each: None,
            self.rule,
        )

    def _groups(self, each: Captioned) -> list[str]:
        """Return what says with what a picture belongs together, besides its copies."""
        if self.group is not None:
            return [group_in_name(self.group, each.name, str(each.picture))]
        # By the picture, not by the caption: all captions of one are on its side.
        return [each.group or each.name]


def _prefix_of(path: str) -> str:
    """Return what makes names below one of several paths other ones."""
    folder = Path(path)
    if folder.is_file():
        folder = folder.parent
    return f"{folder.as_posix()}/"


def _name_of(each: Captioned, number: int) -> str:
    """Return the name of a picture, or of the second of a pair."""
    return f"{each.name} second" if number else each.name
