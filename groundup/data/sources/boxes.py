"""Pictures with boxes around what is in them: COCO's JSON, Pascal VOC's XML, YOLO's texts, a table,
or a Hugging Face data set."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import PathText, setting
from groundup.core.values import Example, Split
from groundup.data.reading.box_card import describe_boxes, describe_marked, labels_in, rarest_of
from groundup.data.reading.box_folders import BoxReading, Form, Units, read_boxes
from groundup.data.reading.box_hub import read_hub_boxes
from groundup.data.reading.box_rules import Outside, PictureSize, settle_boxes
from groundup.data.reading.box_tables import BoxLayout
from groundup.data.reading.class_folders import group_in_name, problem_with_pattern
from groundup.data.reading.hub_splits import HubOrigin
from groundup.data.reading.listing import Listing
from groundup.data.reading.marked_pictures import Marked, MarkedPicture
from groundup.data.reading.picture_facts import PictureFacts, read_picture_facts
from groundup.data.reading.source import Source, refuse_idle
from groundup.data.reading.unlabelled import read_files
from groundup.data.reading.voc import Difficult
from groundup.data.splitting.held_out import (
    draw_missing,
    keep_some,
    leave_out_repeated,
    refuse_empty,
    refuse_unknown,
)
from groundup.data.stream.in_memory import open_in_memory_if_small
from groundup.media.images import SUFFIXES

__all__ = ["BoxesSource"]

_KINDS = tuple(sorted(SUFFIXES))
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Read:
    """All that is known of a source once its pictures were looked at."""

    splits: dict[Split, list[Example]]
    named: tuple[Split, ...]
    marked: Marked
    facts: PictureFacts
    about: dict[str, Any] = field(default_factory=dict)


@data("boxes")
class BoxesSource(Source):
    """Pictures with boxes around what is in them, found by what lies in the folder: COCO's JSON,
    Pascal VOC's XML, YOLO's texts, or a table; or a data set with a column of objects.

    Files and folders called train, validation (valid, val, dev, eval) and test are the splits.
    Pictures of the same bytes are on one side.
    """

    reads_in_order = False
    reads_many_paths = False
    has_labels = True
    has_columns = True
    for_files = ("group", "group_column", "form", "images", "difficult")
    for_datasets = ("image_column", "objects_column")
    for_drawing = ("group", "group_column")

    form: Form | None = setting(
        None, "format of the annotations; silent: recognised by what lies in the folder"
    )
    images: PathText | None = setting(
        None, "folder of the pictures; silent: that of the annotations, and the folders in it"
    )
    units: Units | None = setting(
        None,
        "units of the boxes: pixels, or relative: shares of the width and height; silent: as the"
        " format has it",
    )
    box_layout: BoxLayout | None = setting(
        None,
        "what four numbers of a box in one cell are: xyxy: corners, xywh: a corner and the size,"
        " cxcywh: the middle and the size; silent: xywh",
    )
    difficult: Difficult = setting(
        "ignore",
        "things that Pascal VOC's XML marks as difficult: neither right nor wrong, as in its own"
        " evaluation; keep: things like others; skip: left out",
    )
    image_column: str | None = setting(
        None, "column of the pictures of a data set; silent: found by its type"
    )
    objects_column: str | None = setting(
        None, "column of what is in the pictures of a data set; silent: objects, or the like"
    )
    outside: Outside = setting(
        "clip",
        "boxes that reach beyond their picture are cut off at its edges, and counted; refuse: they"
        " are mistakes",
    )
    negatives: bool = setting(
        True,
        "pictures in which nothing is marked are learned from, as pictures in which nothing is;"
        " false: left out and counted",
    )
    group: str | None = setting(
        None,
        "regular expression searched in a file's path below the root; files for which its first"
        " group, or the whole match, is the same, such as a film's, are on one side",
        min_length=1,
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
        return problem_with_pattern(self.group)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        sides = self._find()[1]
        return self.rule.splits(split for split in sides if split != "train")

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the pictures of a split, sorted by name, or in the order of the rows: their files,
        and their boxes as targets.

        Raises:
            DataError: If there is nothing to learn from, or something cannot be used and
                ``on_unreadable`` is stop.
            RecipeError: If a setting of the split is given and files of a split are held out.
        """
        return list(self._read(cache).splits[split])

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        if (hub := HubOrigin.of(self)) is not None:
            return hub.contents()
        marked, sides, _ = self._find()
        pictures = {f"{s}/{each.name}": each.file for s, own in sides.items() for each in own}
        return {**marked.files, **pictures}

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the pictures of a folder, or of the rows of a file; see
        ``DataSource.unlabelled``."""
        return read_files(path, _KINDS, self.image_column)

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        read = self._read(context.cache)
        if read.marked.problems and context.split == "train":
            counts = Counter(each.kind for each in read.marked.problems)
            words = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
            _log.warning(f"{self.place}: left out: {words}")
        return open_in_memory_if_small(read.splits[context.split], context, self.in_memory)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many pictures and boxes there are of each class in each split, how large these
        are, what was changed and what left out."""
        read = self._read(cache)
        card = dict(read.about)
        card["sizes"] = read.facts.describe_sizes()
        for split, examples in read.splits.items():
            card[split] = describe_boxes(examples)
        boxed = set().union(*map(labels_in, read.splits.values()))
        return card | describe_marked(read.marked, boxed)

    # -------------------------------------------------------------------------------------- reading
    def _reading(self) -> BoxReading:
        return BoxReading(
            self.form,
            self.images,
            self.units,
            self.box_layout,
            self.difficult,
            self.encoding,
            self.on_unreadable,
            self.split_column,
            self.group_column,
        )

    def _find(self) -> tuple[Marked, dict[Split, list[MarkedPicture]], Listing]:
        """Return what the files say, and the pictures named for each split; none is looked at."""
        return _find_once(self, self._stamp())

    def _stamp(self) -> str:
        """Return what changes when a file below one of the paths does."""
        if (hub := HubOrigin.of(self)) is not None:
            return " ".join(hub.table(name).key for name in hub.names().values())
        named = [self.place, self.images, self.validation, self.test]
        key = hashlib.sha256()
        for path in named:
            for file in _files_below(Path(path)) if isinstance(path, str) else ():
                state = file.stat()
                key.update(f"{file}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        return key.hexdigest()

    def _read(self, cache: Path) -> _Read:
        return _read_once(self, self._stamp(), cache)

    def find_marked(self) -> tuple[Marked, dict[Split, list[MarkedPicture]], Listing]:
        """Return the same as ``_find``, from the files, or the data set."""
        reading = self._reading()
        if (hub := HubOrigin.of(self)) is not None:
            found = read_hub_boxes(
                hub,
                self.image_column,
                self.objects_column,
                layout=self.box_layout,
                shares=self.units == "relative",
            )
            by_split: dict[Split, list[MarkedPicture]] = {"train": []}
            for picture in found.pictures:
                by_split.setdefault(picture.split or "train", []).append(picture)
            return found, self._limit(found, by_split), Listing()
        marked, listing = read_boxes(self.place, reading)
        sides: dict[Split, list[MarkedPicture]] = {"train": []}
        held_out: dict[Split, Any] = {"validation": self.validation, "test": self.test}
        # What the recipe names comes before what is called so.
        named: dict[Split, list[MarkedPicture]] = {}
        for split, path in held_out.items():
            if isinstance(path, str):
                there, other = read_boxes(path, reading)
                for picture in there.pictures:
                    picture.name = f"{split}/{picture.name}"
                named[split] = there.pictures
                there.pictures = []
                marked.add(there)
                listing.count(other)
        # What is held out by name may be within the path that is trained on.
        taken = {picture.file for own in named.values() for picture in own}
        for picture in marked.pictures:
            split = picture.split or "train"
            if picture.file in taken:
                continue
            if split in named:
                marked.left_out["pictures called like a split for which others are named"] += 1
            else:
                sides.setdefault(split, []).append(picture)
        # Named ones last, in place of any that were called so.
        sides |= named
        for own in sides.values():
            # by name, because folders list their files in another order on every file system
            own.sort(key=lambda picture: picture.name)
        return marked, self._limit(marked, sides), listing

    def _limit(
        self, marked: Marked, sides: dict[Split, list[MarkedPicture]]
    ) -> dict[Split, list[MarkedPicture]]:
        """Return at most ``limit`` pictures of each split."""
        refuse_idle(self, [split for split in sides if split != "train"])
        found = {split: keep_some(own, self.limit, self.seed) for split, own in sides.items()}
        beyond = sum(map(len, sides.values())) - sum(map(len, found.values()))
        marked.left_out["pictures beyond data.limit"] += beyond
        return found

    def read_pictures(self, cache: Path) -> _Read:
        """Return the splits, every picture looked at and every box checked against it."""
        found, sides, listing = self._find()
        # The same reading of files serves several calls: problems of boxes are added to a copy.
        marked = Marked(found.form)
        marked.add(found)
        every = [picture for own in sides.values() for picture in own]
        names = [picture.name for picture in every]
        files = [picture.file for picture in every]
        facts = read_picture_facts(names, files, self._stamp().encode(), cache, measured=True)
        examples: dict[Split, list[Example]] = {}
        for split, own in sides.items():
            settled = (self._settle(picture, facts, marked) for picture in own)
            examples[split] = [example for example in settled if example is not None]
        # Only once all were looked at, so that the message tells how many others there are.
        self._refuse_problems(marked)
        named = tuple(split for split in sides if split != "train")
        left_out = leave_out_repeated(examples, lambda e: [facts.digests.get(e.name, e.name)])
        marked.left_out["pictures held out as well"] += left_out
        if not examples["train"]:
            raise refuse_empty("train", self.place, self.rule, named)
        groups = {picture.name: picture.group for picture in every if picture.group is not None}
        drawn = draw_missing(
            examples,
            named,
            lambda example: self._keys_of(example, facts, groups),
            rarest_of(examples["train"]),
            self.rule,
        )
        splits = {split: drawn[split] for split in self.rule.splits(named)}
        for split in splits:
            if not splits[split]:
                raise refuse_empty(split, self.place, self.rule, named)
        labels = {split: labels_in(own) for split, own in splits.items()}
        held_out = set().union(*(labels[split] for split in splits if split != "train"))
        refuse_unknown(labels["train"], held_out, self.place)
        about: dict[str, Any] = {"source": self.place, "licence": self.licence or "not stated"}
        if (hub := HubOrigin.of(self)) is not None:
            about = hub.about({split: hub.table(name) for split, name in hub.names().items()})
        about["form"] = marked.form
        if hub is None:
            about["files"] = listing.about(len(every) + len(marked.files))
        if left := +marked.left_out:
            about["pictures_left_out"] = dict(sorted(left.items()))
        return _Read(splits, named, marked, facts, about)

    def _settle(
        self, picture: MarkedPicture, facts: PictureFacts, marked: Marked
    ) -> Example | None:
        """Return a picture with its boxes in pixels, or None after noting why it is left out."""
        if picture.name in facts.problems:
            marked.complain(
                "unreadable pictures",
                str(picture.file),
                facts.problems[picture.name],
                "Replace or remove it",
            )
            return None
        size = PictureSize(*facts.measures[picture.name])
        before = len(marked.problems)
        boxes = settle_boxes(picture, size, self.outside, marked, certain=self.units is not None)
        if boxes is None:
            return None
        if not boxes.labels and (picture.unread or len(marked.problems) > before):
            # Where all its boxes are mistakes, a picture is no picture in which nothing is.
            marked.left_out["pictures of which no box can be used"] += 1
            return None
        if not boxes.labels and not self.negatives:
            marked.left_out["pictures without boxes"] += 1
            return None
        return Example(picture.name, picture.file, boxes, str(picture.file))

    def _refuse_problems(self, marked: Marked) -> None:
        if not marked.problems or self.on_unreadable == "skip":
            return
        # One message for all: who has a thousand such boxes does not want to meet them one by one.
        first = marked.problems[0]
        problem = first.problem
        counts = Counter(each.kind for each in marked.problems)
        counts[first.kind] -= 1
        others = ", ".join(f"{count:,} {kind}" for kind, count in (+counts).items())
        if others:
            problem += f" (there are others: {others})"
        remedy = f"{first.remedy}; or set data.on_unreadable: skip to leave such out"
        raise DataError(first.where, problem, remedy)

    def _keys_of(
        self, example: Example, facts: PictureFacts, groups: Mapping[str, str]
    ) -> tuple[str, ...]:
        key = groups.get(example.name, example.name)
        if self.group is not None:
            key = group_in_name(self.group, example.name, example.origin)
        copies = facts.digests.get(example.name)
        return (key,) if copies is None else (key, copies)


@lru_cache(maxsize=2)
def _find_once(
    source: BoxesSource, stamp: str
) -> tuple[Marked, dict[Split, list[MarkedPicture]], Listing]:
    # A start asks several times, and COCO's own file takes half a minute to read.
    return source.find_marked()


@lru_cache(maxsize=2)
def _read_once(source: BoxesSource, stamp: str, cache: Path) -> _Read:
    return source.read_pictures(cache)


def _files_below(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (file for file in sorted(path.rglob("*")) if file.is_file())
