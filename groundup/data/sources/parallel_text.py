"""Pairs of a text and the text to be made of it: a sentence and its translation, an article and its
summary, a question and its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from groundup.contracts.data import DataContext, DataSource, Stream, Unlabelled
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import data
from groundup.core.settings import PathText, setting
from groundup.core.values import Example, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.cleaning.pair_filters import PairFilters, PairReport, filter_pairs
from groundup.data.reading.aligned_files import AlignedFiles, aligned_records
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.files import Cells, Record, read_file
from groundup.data.reading.gettext_catalogs import catalog_records
from groundup.data.reading.listing import ROW_KINDS, leave_out, suffix_of
from groundup.data.reading.location import Origin
from groundup.data.reading.source import Source, as_list
from groundup.data.reading.tmx import tmx_records
from groundup.data.reading.unlabelled import read_rows, text_in
from groundup.data.schemas.pair_columns import (
    PairColumns,
    choose_columns,
    join_context,
    say_columns,
    to_sides,
)
from groundup.data.schemas.squad import squad_rows
from groundup.data.splitting.held_out import lengths_of
from groundup.data.splitting.row_split import SplitExamples, read_splits
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.data.stream.row_order import similar_lengths_setting

__all__ = ["ParallelText"]

_CATALOGS = (".po", ".mo")
_KINDS = (*ROW_KINDS, ".tmx", *_CATALOGS)
_NAMED = 6  # files without a partner that are named


class _Pairs(NamedTuple):
    """The pairs of each split, and what was left out: by the filters, files without a partner, and
    pairs whose source is held out as well."""

    splits: SplitExamples
    report: PairReport
    alone: list[str]
    repeated: int


@data("parallel_text")
class ParallelText(Source):
    """Texts with what is to be made of them: two aligned files, .tmx, .po, .mo, rows of .csv .tsv
    .jsonl .json .parquet, or a hub name.

    Held out are documents where the rows say theirs (``group_column``) or each file is one
    (``whole_files``), else pairs. No source text of a held-out pair is trained on.
    """

    has_columns = True
    for_files = ("header", "separator", "quotes", "target_path", "whole_files")

    source_column: str | int = setting(
        "source",
        "column of the text that is read; silent: source, or one with a usual name, such as"
        " document, article or question; its number from 1 without a header",
    )
    target_column: str | int = setting(
        "target",
        "column of the text that is to be made of it; silent: target, or summary, highlights,"
        " answer or answers, of which the first counts; its number from 1 without a header",
    )
    context_column: str | int | None = setting(
        None,
        "column of a text that comes after the source, on a new line; silent: context, next to"
        " question",
    )
    source_language: str | None = setting(
        None,
        "language of the text that is read, as it is called in .tmx files, in translation"
        " dictionaries, and in the names of aligned files, such as train.en",
        min_length=1,
    )
    target_language: str | None = setting(
        None, "language of the text that is to be made of it, as source_language", min_length=1
    )
    translation_column: str = setting(
        "translation", "column of the dictionaries with a text for each language, with languages"
    )
    target_path: PathText | list[PathText] | None = setting(
        None,
        "file with a target in each line, for the sources in the lines of path; or a folder of"
        " such files, called as those in path",
    )
    whole_files: bool = setting(
        False, "each file is a document: all of its pairs are on one side of the split"
    )
    filters: PairFilters = setting(PairFilters(), "which pairs are left out")
    similar_lengths: bool = similar_lengths_setting("pairs")
    header: bool = setting(True, "the first row of .csv and .tsv files names the columns")
    separator: str | None = setting(
        None,
        "character between cells; silent: a comma in .csv, a tab in .tsv, or what the header makes"
        " certain",
        min_length=1,
        max_length=1,
    )
    quotes: bool = setting(True, "cells of .csv and .tsv may be quoted; false: quotes are text")

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        languages = (self.source_language, self.target_language)
        if (languages[0] is None) != (languages[1] is None):
            missing = "source_language" if languages[0] is None else "target_language"
            return f"one language is given, but there are two. Set {missing}"
        if self._has_languages:
            if languages[0] == languages[1]:
                return f"both languages are {languages[0]!r}. Name two"
            if given := self.given("source_column", "target_column", "context_column"):
                why = f"with languages, texts are in the column {self.translation_column!r}"
                return f"{given[0]} has no effect: {why}. Remove it, or the languages"
        elif self.given("translation_column"):
            idle = "translation_column has no effect without source_language"
            return f"{idle} and target_language. Set them"
        if self.target_path is not None and (problem := self._problem_with_target_path()):
            return problem
        return self._problem_with_columns()

    def _problem_with_target_path(self) -> str | None:
        idle = self.given(
            "source_column", "target_column", "context_column", "header", "separator", "quotes"
        )
        if self._has_languages or idle:
            name = idle[0] if idle else "source_language"
            return f"{name} has no effect with target_path. Remove one of them"
        if self.group_column is not None or self.time_column is not None:
            name = "time_column" if self.group_column is None else "group_column"
            return f"{name} has no effect with target_path: lines have no columns. Remove it"
        if isinstance(self.path, list) != isinstance(self.target_path, list) or (
            isinstance(self.path, list) and len(self.path) != len(self.target_path or ())
        ):
            return "path and target_path name different numbers of files. Name one for each"
        if self.validation is not None or self.names_test:
            name = "validation" if self.validation is not None else "test"
            remedy = "Call files by their language, such as dev.en and dev.de, and set"
            problem = f"{name} names sources, but target_path no targets for them"
            return f"{problem}. {remedy} source_language and target_language in its place"
        return None

    def _problem_with_columns(self) -> str | None:
        columns = {"source_column": self.source_column, "target_column": self.target_column}
        columns |= {} if self.context_column is None else {"context_column": self.context_column}
        for name, column in columns.items():
            given = name in self.given(*columns)
            if (given or not self.header) and isinstance(column, str) != self.header:
                allowed = {True: "true; allowed: a name", False: "false; allowed: a number, from 1"}
                found = f"{name} is {column!r}, but header is {allowed[self.header]}"
                return f"{found}. Correct one of them"
        if self.source_column == self.target_column:
            return f"source_column and target_column are both {self.source_column!r}. Name two"
        return None

    @property
    def _has_languages(self) -> bool:
        return self.source_language is not None and self.target_language is not None

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        return self._origin().splits

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the pairs of a split in the order of the files, each with its source as inputs.

        Raises:
            DataError: If a file cannot be read, a column or a line is missing, or nothing is left.
        """
        return self._read_pairs(self._origin()).splits[split]

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        origin = self._origin()
        return {**origin.contents(), **self._aligned(origin).contents()}

    def reading(self, path: str) -> DataSource | None:
        """Return the source of another file or folder; see ``DataSource.reading``."""
        # Targets of these files are those of no other file.
        own = self.model_copy(update={"target_path": None})
        return super(ParallelText, own).reading(path)

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the texts of rows, the lines of a text where texts are sentences in files by
        language, or else whole texts; see ``DataSource.unlabelled``."""
        names = [self._languages[0], "text"] if self._has_languages else [str(self.source_column)]
        # A sentence a line is what was trained on; an article may well have several.
        lines = self._has_languages or self.target_path is not None

        def to_inputs(row: Mapping[str, Any]) -> str:
            inside = row.get(self.translation_column)
            if self._has_languages:
                return text_in(inside if isinstance(inside, dict) else row, *names)
            columns = self._columns_in(row)
            after = "" if columns.context is None else row.get(columns.context)
            return join_context(text_in(row, columns.source), str(after or ""))

        return read_rows(
            path,
            to_inputs,
            self.encoding,
            text=names[0],
            cells=self._cells,
            split_on="line" if lines else None,
            nested=squad_rows,
        )

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        pairs = self.examples(context.split, context.cache)
        return open_indexed_stream(pairs, context, similar_lengths=self.similar_lengths)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many pairs each split has, how long their sides are and how they compare,
        what was left out and why, and the licence."""
        origin = self._origin()
        found = self._read_pairs(origin)
        card = origin.about()
        if found.alone:
            leave_out(card["files"], "without a partner of the other language", len(found.alone))
            shown = f"without a partner: {', '.join(found.alone[:_NAMED])}"
            card["warnings"] = [*card.get("warnings", ()), shown]
        card["rows"] = found.report.about()
        card["same_source_as_held_out"] = found.repeated
        for split, pairs in found.splits.items():
            sources = [len(pair.inputs) for pair in pairs]
            targets = [len(pair.target) for pair in pairs]
            ratios = [t / s for s, t in zip(sources, targets, strict=True)]
            card[split] = {
                "pairs": len(pairs),
                "different_sources": len({pair.inputs for pair in pairs}),
                "sources": lengths_of(sources, "characters"),
                "targets": lengths_of(targets, "characters"),
                "target_over_source": lengths_of(ratios, "times"),
            }
        return card

    # -------------------------------------------------------------------------------------- reading
    def _origin(self) -> Origin:
        kinds = list(_KINDS)
        # Aligned files end as their language is called, which is no kind that others know.
        if self.target_path is not None:
            kinds = [".txt", *map(suffix_of, as_list(self.path))]
        elif self._has_languages:
            kinds += [".txt", *(f".{name}".lower() for name in self._languages)]
        return Origin(self, tuple(filter(None, dict.fromkeys(kinds))))

    @property
    def _named_languages(self) -> tuple[str, str] | None:
        return self._languages if self._has_languages else None

    @property
    def _languages(self) -> tuple[str, str]:
        return self.source_language or "", self.target_language or ""

    def _aligned(self, origin: Origin) -> AlignedFiles:
        """Return which files are aligned with which.

        Raises:
            DataError: If none is, and there is nothing else to read.
            RecipeError: If nothing is read by the languages that are given.
        """
        placed = [each for split in ("train", *origin.held_out) for each in origin.files(split)]
        every = [file for _, file in placed]
        if self.target_path is not None:
            targets = zip(as_list(self.path), as_list(self.target_path), strict=True)
            return AlignedFiles.by_path(placed, dict(targets))
        if self._has_languages and every and all(file.kind in _CATALOGS for file in every):
            problem = f"has no effect: {self.place} has .po and .mo files alone, of two languages"
            raise RecipeError("recipe.data.source_language", problem, "Remove both languages")
        plain = [file for file in every if file.kind not in _KINDS]
        # Lines of rows and catalogs are no texts, so these have no partner, whatever their names.
        aligned = AlignedFiles.by_language(plain, *self._languages)
        if plain and len(plain) == len(every) and not aligned.targets:
            one, other = self._languages
            raise DataError(
                self.place,
                f"no file has a partner in the other language; looked for names such as train.{one}"
                f" next to train.{other}; found: {', '.join(aligned.alone[:6])}",
                "Correct data.source_language and data.target_language, or name the file of the"
                " targets as data.target_path",
            )
        return aligned

    def _read_pairs(self, origin: Origin) -> _Pairs:
        """Read everything, and put each pair on its side."""
        report = PairReport()
        aligned = self._aligned(origin)
        placement = origin.placement

        def read(split: Split) -> Iterable[Example]:
            records = islice(self._read_records(split, origin, aligned), self.limit)
            pairs = (_to_pair(split, record, report) for record in records)
            return filter_pairs(pairs, self.filters, report)

        def documents(pair: Example) -> tuple[str, ...]:
            # A name begins with the file: train/en/a.txt:17.
            if self.whole_files:
                return (*placement.keys(pair.origin), f"file {pair.name.rpartition(':')[0]}")
            return placement.keys(pair.origin)

        # By time rows are on their side whatever they belong to, and read_splits does the rest.
        known = documents if self.whole_files or self.group_column is not None else None
        splits = read_splits(origin, read, _source_of, self.rule, known)
        kept = report.found - report.left_out.total()
        return _Pairs(splits, report, aligned.alone, kept - sum(map(len, splits.values())))

    def _read_records(
        self, split: Split, origin: Origin, aligned: AlignedFiles
    ) -> Iterator[Record]:
        """Yield what the data has for a split, each record with ``source`` and ``target``."""
        if self.dataset is not None:
            columns = self._columns_of(lambda: origin.records(split))
            rows = origin.records(split, columns.names)
            yield from (to_sides(record, columns, self._named_languages) for record in rows)
            return
        files = origin.files(split)
        several = len({path for path, _ in files}) > 1
        for path, file in files:
            for record in self._read_file(file, origin, aligned):
                if several:  # names are unique in a source, and two folders may share one
                    record = replace(record, name=f"{path}/{record.name}")
                yield record

    def _read_file(self, file: DataFile, origin: Origin, aligned: AlignedFiles) -> Iterator[Record]:
        watch = origin.placement.watch
        target = aligned.targets.get(file.path)
        if target is not None:
            return watch(aligned_records(file, target))
        if file.kind == ".tmx":
            return watch(tmx_records(file, *self._languages_for(file)))
        if file.kind in _CATALOGS:
            return watch(catalog_records(file))
        if file.kind not in ROW_KINDS:  # what holds targets, and what has no partner
            return iter(())

        def read(*wanted: str) -> Iterator[Record]:
            return squad_rows(file) or read_file(file, columns=wanted, cells=self._cells)

        columns = self._columns_of(read)
        rows = read(*columns.names, *origin.placement.columns)
        # Groups are read off the columns as they are called in the file.
        return (to_sides(record, columns, self._named_languages) for record in watch(rows))

    def _languages_for(self, file: DataFile) -> tuple[str, str]:
        if not self._has_languages:
            raise DataError(
                str(file.path),
                "has texts in several languages, and no two are named",
                "Set data.source_language and data.target_language, such as en and de",
            )
        return self._languages

    @property
    def _cells(self) -> Cells:
        return Cells(self.separator, self.header, self.quotes)

    def _columns_of(self, rows: Callable[[], Iterator[Record]]) -> PairColumns:
        """Return the columns that are read: those that are named, else by what the first row of a
        file has."""
        if self._has_languages:
            return PairColumns(self.translation_column, "")
        first = next(rows(), None)
        columns = self._columns_in({} if first is None else first.fields)
        say_columns(self.place, columns)
        return columns

    def _columns_in(self, row: Mapping[str, Any]) -> PairColumns:
        context = None if self.context_column is None else str(self.context_column)
        named = PairColumns(str(self.source_column), str(self.target_column), context)
        given = self.given("source_column", "target_column")
        return choose_columns(tuple(row), named, given) if self.header else named


def _to_pair(split: Split, record: Record, report: PairReport) -> Example:
    texts = record.fields
    report.further_answers += texts.get("further", 0)
    name = f"{split}/{record.name}"
    return Example(name, texts["source"], texts["target"], record.origin, predicts_text=True)


def _source_of(pair: Example) -> tuple[str]:
    """Return a hash of the source but for blanks and capitals: what was read once is known."""
    # Not of its target: two answers to one question are no leak apart, but would be on two sides.
    return (text_digest(" ".join(pair.inputs.split()).casefold()),)
