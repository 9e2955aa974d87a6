"""A corpus in parts, each examined by a job of its own: which documents a part has, and how the
facts of all parts are put together in the order of the corpus.

A part's folder holds the facts of its documents and ``part.json``. Its documents are in segments,
each of which follows others in the corpus by its place: a file, or a block of documents.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.data import DataContext, Part
from groundup.core.errors import DataError
from groundup.core.values import Document, Split, TokenSequence
from groundup.data.cleaning.cleaning import Cleaning
from groundup.data.cleaning.facts import FACTS, FactsWriter
from groundup.data.cleaning.minhash import PERMUTATIONS
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.location import Origin
from groundup.data.splitting.held_out import HELD_OUT_FIRST
from groundup.data.stream.shard_writer import EncodedDocument
from groundup.data.stream.shards import Shards
from groundup.data.stream.working_folder import open_working_folder
from groundup.media.text_sample import ALL, TextSample

__all__ = ["PartsFolder", "Segment", "documents_of_part", "files_of_part", "write_part"]

# Documents of one block, where parts cannot take whole files.
BLOCK = 4096
# Rows of a segment: a part of whole files is one of any size, and cut.
_MOST_ROWS = 1 << 16
_NAMED = 5
_SAMPLE = "sample.jsonl"  # of a part's texts: a line about it, then (document, text)
Documents = Iterator[tuple[Split, Document]]


@dataclass(frozen=True)
class Segment:
    """Documents that follow each other in the corpus.

    Attributes:
        place: Orders the segments of all parts.
        part: The part that has it, from 1.
        first: The number of its first document in that part.
        rows: How many documents it has.
    """

    place: int
    part: int
    first: int
    rows: int


def documents_of_part(
    origin: Origin, read: Callable[[], Documents], part: Part
) -> Iterator[tuple[int, Split, Document]]:
    """Yield the documents of a part, each with the place of its segment.

    Files are handed out whole, by their bytes. Where that would leave one part much more than
    others (one file of all documents), or where rows are not those of whole files, every part reads
    everything and takes every n-th block of documents: it skips what is others' at the rate of
    reading, which is many times that of cleaning.
    """
    files = files_of_part(origin, part)
    if files is not None:
        # the part is a run of files, and so one segment
        origin.only = {id(file) for file in files}
        for split, document in read():
            yield part.number, split, document
        origin.only = None
        return
    for number, (split, document) in enumerate(read()):
        block = number // BLOCK
        if block % part.of == part.number - 1:
            yield block, split, document


def files_of_part(origin: Origin, part: Part) -> list[DataFile] | None:
    """Return the files of a part; None where parts are made of blocks of documents."""
    # rows of one file may be of several splits, or only the first rows of all be read
    if origin.column is not None or origin.source.limit is not None:
        return None
    there = [split for split in HELD_OUT_FIRST if split == "train" or split in origin.held_out]
    files = [file for split in there for _, file in origin.files(split)]
    sizes = np.array([file.path.stat().st_size for file in files], np.int64)
    if not len(files) or sizes.max() > sizes.sum() / part.of:
        return None
    # by the middle of each file, in order
    middles = np.cumsum(sizes) - sizes / 2
    owners = np.minimum(middles * part.of // max(1, sizes.sum()), part.of - 1)
    mine = owners == part.number - 1
    return [file for file, own in zip(files, mine, strict=True) if own]


def write_part(
    folder: Path,
    documents: Iterable[tuple[int, Split, Document]],
    settings: Cleaning,
    about: Mapping[str, Any],
    files: Sequence[DataFile],
    sample_bytes: int,
) -> None:
    """Write the facts of a part's documents; the folder is there only once it is complete.

    Args:
        folder: The part's.
        documents: Each with the place of its segment.
        settings: What cleaning changes and removes.
        about: What the part was made of and with, to say what differs from another.
        files: Those in which the part counts what is met besides rows.
        sample_bytes: What a tokenizer is learned from at most: as much is drawn from the part.
    """
    with open_working_folder(folder) as own:
        segments: list[list[int]] = []
        sample = TextSample(sample_bytes)
        with FactsWriter(own, settings) as writer:
            for place, split, document in documents:
                if not segments or segments[-1][0] != place:
                    segments.append([place, writer.rows, 0])
                segments[-1][2] += 1
                text = writer.add(split, document)
                if text is not None and split == "train" and sample_bytes:
                    sample.add(text, writer.rows - 1)
        _write_sample(own / _SAMPLE, sample, sample_bytes)
        met = sum((file.notes for file in files), Counter[str]())
        facts = {"about": about, "segments": segments, "met": dict(met)}
        (own / "part.json").write_text(json.dumps(facts), encoding="utf-8")
        (own / "lock").unlink()
        # of two jobs that make the same part, the first has it
        with suppress(OSError):
            own.rename(folder)


def _write_sample(path: Path, sample: TextSample, sample_bytes: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        head = {"most_bytes": sample_bytes, "limit": sample.limit}
        file.write(json.dumps(head) + "\n")
        for line in sample.numbered():
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


class PartsFolder:
    """The examined parts of a corpus.

    Args:
        root: Where parts of corpora are kept.
        key: What the documents depend on.
        of: How many parts there are.
    """

    def __init__(self, root: Path, key: str, of: int) -> None:
        self._root = root
        self._key = key
        self.of = of

    def folder(self, number: int) -> Path:
        """Return the folder of a part."""
        return self._root / self._key / f"of-{self.of}" / f"documents-{number}"

    def is_there(self, number: int) -> bool:
        """Return whether a part was examined."""
        return (self.folder(number) / "part.json").is_file()

    def refuse_missing(self, about: Mapping[str, Any], where: str) -> None:
        """Make sure that all parts were examined.

        Args:
            about: What they have to be made of and with.
            where: What to call the source.

        Raises:
            DataError: Naming those that are missing, and what was there in place of the first.
        """
        missing = [number for number in range(1, self.of + 1) if not self.is_there(number)]
        if not missing:
            return
        problem = f"{len(missing)} of {self.of} parts are missing: {self._name(missing)}"
        if other := self._other(missing[0], about):
            problem += f"; {other}"
        raise DataError(
            where, problem, f"Run groundup data prepare with --part {missing[0]}/{self.of}"
        )

    def _other(self, number: int, about: Mapping[str, Any]) -> str:
        """Return what is known of a part that was made of other data, with other settings, or as
        one of another number of parts."""
        for path in self._root.glob(f"*/of-*/documents-{number}/part.json"):
            found = json.loads(path.read_text("utf-8"))["about"]
            if found.get("name") != about["name"]:
                continue
            for name in ("settings", "files", "version"):
                if found[name] != about[name]:
                    return f"part {number} was made with other {_difference(name, found, about)}"
            return f"part {number} was made as one of {path.parents[1].name.removeprefix('of-')}"
        return ""

    def segments(self) -> list[Segment]:
        """Return the segments of all parts in the order of the corpus."""
        found = [
            Segment(place, number, start, min(_MOST_ROWS, first + rows - start))
            for number in range(1, self.of + 1)
            for place, first, rows in self._read(number)["segments"]
            for start in range(first, first + rows, _MOST_ROWS)
        ]
        # those of one place stay in their order
        return sorted(found, key=lambda segment: segment.place)

    def join(self, folder: Path) -> Counter[str]:
        """Write the facts of all documents to a folder, in the order of the corpus, and return what
        was met in the files besides rows."""
        segments = self.segments()
        _copy(self, segments, folder, "facts.bin", FACTS.itemsize)
        if (self.folder(1) / "signatures.bin").is_file():
            _copy(self, segments, folder, "signatures.bin", 4 * PERMUTATIONS)
        found = [self._read(number)["met"] for number in range(1, self.of + 1)]
        return sum((Counter(met) for met in found), Counter[str]())

    # --------------------------------------------------------------------------------------- tokens
    def tokens_folder(self, number: int, context: DataContext) -> Path:
        """Return the folder of a part's tokens of a split."""
        name = f"tokens-{context.encode_key}-{context.split}-{number}"
        return self.folder(number).with_name(name)

    def refuse_missing_tokens(self, context: DataContext, where: str) -> None:
        """Make sure that all parts were encoded.

        Raises:
            DataError: Naming those that are missing.
        """
        missing = [
            number
            for number in range(1, self.of + 1)
            if not self.tokens_folder(number, context).is_dir()
        ]
        if missing:
            problem = f"the tokens ({context.split}) of {self._name(missing)} are missing"
            remedy = f"Run groundup data prepare with --part {missing[0]}/{self.of} again"
            raise DataError(where, problem, remedy)

    def numbers_of(self, number: int) -> Iterator[int]:
        """Yield the numbers in the corpus of a part's documents, in the part's order."""
        first = 0
        for segment in self.segments():
            if segment.part == number:
                yield from range(first, first + segment.rows)
            first += segment.rows

    def encoded(self, chosen: NDArray[np.bool_], context: DataContext) -> Iterator[EncodedDocument]:
        """Yield the chosen documents of the corpus in its order, encoded.

        Args:
            chosen: (documents,) which documents are of the split.
            context: Of the split.
        """
        shards = [
            Shards.load(self.tokens_folder(number, context)) for number in range(1, self.of + 1)
        ]
        next_of = [0] * self.of
        first = 0
        for segment in self.segments():
            own = np.flatnonzero(chosen[first : first + segment.rows])
            first += segment.rows
            tokens = shards[segment.part - 1]
            lengths = self._characters(segment)[own].tolist()
            for characters in lengths:
                document = next_of[segment.part - 1]
                next_of[segment.part - 1] += 1
                size = int(tokens.offsets[document + 1] - tokens.offsets[document])
                found, trained = tokens.read(document, 0, size)
                known = trained.astype(np.bool_) if trained is not None else None
                yield EncodedDocument(characters, TokenSequence(found.astype(np.int32), known))

    def _characters(self, segment: Segment) -> NDArray[np.uint64]:
        path = self.folder(segment.part) / "facts.bin"
        offset = segment.first * FACTS.itemsize
        facts = np.fromfile(path, FACTS, segment.rows, offset=offset)
        return np.asarray(facts["characters"])

    def _name(self, numbers: Sequence[int]) -> str:
        named = ", ".join(f"{number}/{self.of}" for number in numbers[:_NAMED])
        more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
        return f"{named}{more}"

    # ------------------------------------------------------------------------------------- a sample
    def draw_texts(self, chosen: NDArray[np.bool_], sample_bytes: int) -> None:
        """Keep the texts that a tokenizer is learned from, drawn from what the parts have drawn: no
        document is read again.

        Nothing is kept where parts have left out what belongs to the sample, because most of what
        they had drawn is removed or held out, or where they have drawn for another tokenizer.

        Args:
            chosen: (documents,) which documents of the corpus are trained on.
            sample_bytes: How much is learned from at most.
        """
        sample = TextSample(sample_bytes)
        least = ALL
        for number in range(1, self.of + 1):
            own = [segment for segment in self.segments() if segment.part == number]
            firsts = np.array([segment.first for segment in own], np.int64)
            starts = self._starts(number)
            with (self.folder(number) / _SAMPLE).open(encoding="utf-8") as file:
                head = json.loads(next(file))
                if head["most_bytes"] != sample_bytes:
                    return
                least = min(least, head["limit"])
                for line in file:
                    document, text = json.loads(line)
                    segment = int(np.searchsorted(firsts, document, side="right")) - 1
                    place = int(starts[segment] + document - firsts[segment])
                    if chosen[place]:
                        sample.add(text, place)
        if sample.limit <= least:
            _write_sample(self._drawn(sample_bytes), sample, sample_bytes)

    def drawn_texts(self, sample_bytes: int) -> Callable[[], Iterator[str]] | None:
        """Return what gives the texts that ``draw_texts`` kept; None where there are none."""
        path = self._drawn(sample_bytes)

        def texts() -> Iterator[str]:
            with path.open(encoding="utf-8") as file:
                next(file)
                for line in file:
                    yield json.loads(line)[1]

        return texts if path.is_file() else None

    def _drawn(self, sample_bytes: int) -> Path:
        return self._root / self._key / f"drawn-{sample_bytes}.jsonl"

    def _starts(self, number: int) -> NDArray[np.int64]:
        """Return (segments,) the numbers in the corpus of the first documents of a part's
        segments."""
        found = []
        first = 0
        for segment in self.segments():
            if segment.part == number:
                found.append(first)
            first += segment.rows
        return np.array(found, np.int64)

    def _read(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder(number) / "part.json").read_text("utf-8"))
        return found


def _difference(name: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return the first setting or file that differs, in words."""
    before = found[name]
    now = wanted[name]
    if not isinstance(before, dict) or not isinstance(now, dict):
        return f"{name}: {before}, and now {now}"
    for key in {**before, **now}:
        one = before.get(key)
        other = now.get(key)
        if isinstance(one, dict) and isinstance(other, dict) and one != other:
            return _difference(key, before, now)
        if one != other:
            return f"{name}: {key} was {one}, and is {other}"
    return name


def _copy(parts: PartsFolder, segments: list[Segment], folder: Path, name: str, row: int) -> None:
    files = {number: (parts.folder(number) / name).open("rb") for number in range(1, parts.of + 1)}
    try:
        with (folder / name).open("wb") as out:
            for segment in segments:
                file = files[segment.part]
                file.seek(segment.first * row)
                out.write(file.read(segment.rows * row))
    finally:
        for file in files.values():
            file.close()
