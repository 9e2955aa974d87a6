"""Interactions of users with items: ratings, purchases, plays, and what is known of either.

Legend: R interactions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.data import DataContext, DataSource, Stream, Unlabelled
from groundup.contracts.recommendation import Catalogue, Choice, UserHistory
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import PathText, setting
from groundup.core.values import Example, Split
from groundup.data.cleaning.interaction_filters import Repeats, find_core, find_repeats
from groundup.data.reading.interaction_card import by_user, describe_log
from groundup.data.reading.interaction_files import (
    Rows,
    files_of,
    find_column,
    next_to,
    read_rows,
    stamp_of,
)
from groundup.data.reading.interaction_log import Log, LogColumns, read_columns_of, read_log
from groundup.data.reading.source import Source
from groundup.data.splitting.drawing import say_once
from groundup.data.splitting.interaction_split import HELD_OUT, Held, hold_out
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.table_values import as_category

__all__ = ["Interactions"]

_USER = ("user_id", "user", "userid", "uid", "customer_id", "customer", "session_id", "visitor_id")
_ITEM = ("item_id", "item", "itemid", "iid", "movie_id", "movieid", "product_id", "asin", "book_id")
_RATING = ("rating", "score", "stars", "overall")
_TIME = ("timestamp", "time", "date", "datetime", "created_at", "unixreviewtime")
_TITLE = ("title", "movie_title", "name", "item_name", "product_name", "book_title")


@dataclass(frozen=True, eq=False)
class _Read:
    """What was read: the log, the split of each interaction, and what is known besides."""

    log: Log
    split: NDArray[np.int64]
    catalogue: Catalogue
    origins: list[str]
    about: dict[str, Any]


@data("interactions")
class Interactions(Source):
    """Who did what, and when: rows of .csv, .tsv, .parquet or .jsonl, or RecBole's .inter.

    Interactions of a user are in order of time; those of one second are in the order of the rows.
    """

    reads_datasets = False
    reads_in_order = False
    reads_many_paths = False
    for_drawing = ("hold_out", "folds", "fold")

    users: PathText | None = setting(
        None, "file with columns of users; silent: the .user next to a .inter"
    )
    items: PathText | None = setting(
        None, "file with columns of items; silent: the .item next to a .inter"
    )
    user: str | None = setting(None, "column of the user; silent: user_id, user, ...")
    item: str | None = setting(None, "column of the item; silent: item_id, item, ...")
    rating: str | None = setting(
        None, "column of ratings; silent: rating, score, stars; '': there are none"
    )
    time: str | None = setting(
        None, "column of numbers or dates; silent: timestamp, time, date; '': as the rows come"
    )
    title: str | None = setting(
        None, "column of what an item is called; silent: title, name, ...; '': none"
    )
    list_columns: tuple[str, ...] = setting(
        (), "columns of users or items that hold several words, such as genres"
    )
    list_separator: str = setting("|", "what is between these words", min_length=1)
    ignore: tuple[str, ...] = setting((), "columns of users and items to leave out")
    separator: str | None = setting(
        None, "character between cells of .csv and .tsv; silent: as their suffix says", min_length=1
    )
    rating_range: tuple[float, float] | None = setting(
        None, "the least and the highest rating; others are mistakes"
    )
    min_rating: float | None = setting(
        None, "only interactions rated so or higher are taken; null: all"
    )
    repeats: Repeats = setting(
        "last", "of several interactions of a user with an item: which is kept, or an error"
    )
    min_user_interactions: int = setting(
        1, "users with fewer are left out, and items, until none is left (k-core)", ge=1
    )
    min_item_interactions: int = setting(1, "items with fewer are left out likewise", ge=1)
    hold_out: Held = setting(
        "last",
        "held out: of each user the last two; of all the latest; all of some users; or any",
    )
    folds: int | None = setting(
        None,
        "cut users or interactions into N folds, one of them the test",
        ge=2,
        applies_when={"hold_out": ("users", "random")},
    )
    fold: int = setting(0, "the fold that is the test, from 0", ge=0)
    rows: Literal["users", "interactions"] = setting(
        "users",
        "one training example is all of a user's interactions, as models of sequences learn; or one"
        " interaction",
    )

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        low, high = self.rating_range or (0.0, 1.0)
        if low >= high:
            return f"rating_range is {low:g} to {high:g}. Write the lower one first"
        if self.fold >= (self.folds or 1):
            return f"fold is {self.fold}, of {self.folds or 1}. Name one from 0"
        return self._problem_with_held_out()

    def _problem_with_held_out(self) -> str | None:
        for name in ("validation", "test"):
            if isinstance(dict(self)[name], str | list):
                problem = f"{name} names a file; interactions are held out of path, by hold_out"
                return f"{problem}. Remove it"
        drawn = {"last": (), "time": ("fraction", "test")}.get(
            self.hold_out, ("fraction", "test", "seed")
        )
        idle = [name for name in self.given("fraction", "test", "seed") if name not in drawn]
        if idle:
            return f"{idle[0]} has no effect with hold_out: {self.hold_out}. Remove {idle[0]}"
        if self.folds is not None and self.test is not None:
            return "test has no effect with folds. Remove one of them"
        if self.hold_out != "last" and not self.fraction:
            return "fraction is 0, so nothing chooses the best weights. Set 0.05"
        return None

    @property
    def _file(self) -> str:
        assert isinstance(self.path, str)
        return self.path

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are."""
        # Of each user the last is always test.
        tested = self.hold_out == "last" or self.folds is not None or self.test is not None
        return ("train", "validation", "test") if tested else ("train", "validation")

    @property
    def _paths(self) -> list[str]:
        users = self.users or next_to(self._file, ".user")
        items = self.items or next_to(self._file, ".item")
        return [self._file, *filter(None, (users, items))]

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        files = [file for path in self._paths for file in files_of(path)]
        return {f"data/{file.relative}": file.path for file in files}

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return users with what they did before and what they did next, in the order in which they
        come first.

        Of held-out users and times, what was before is all that earlier splits have of the user; in
        training nothing is before.

        Raises:
            DataError: If a file cannot be read, or the split is empty.
        """
        read = _read_once(self, stamp_of(self._paths))
        found = list(self._examples(read, split))
        if not found:
            raise DataError(
                f"data ({split})",
                f"holds nothing out: {len(read.log.users):,} interactions of"
                f" {len(read.log.user_ids):,} users are too few for hold_out: {self.hold_out}",
                "Give more data, or hold out otherwise",
            )
        return found[: self.limit]

    def _examples(self, read: _Read, split: Split) -> Iterator[Example]:
        log = read.log
        ends = np.flatnonzero(np.append(np.diff(log.users), 1)) + 1
        # Rows of a user are next to each other.
        begin = 0
        for end in ends.tolist():
            own = np.arange(begin, end)
            begin = end
            now = own[read.split[own] == HELD_OUT[split]]
            before = own[read.split[own] < HELD_OUT[split]]
            if split == "train" or not len(now):
                before = own[:0]
            elif self.hold_out == "users":
                # All of the user is held out, and what is not predicted is what is known.
                before, now = now[:-1], now[-1:]
            # Of this user the split has nothing.
            if not len(now):
                continue
            if split == "train" and self.rows == "interactions":
                for row in now.tolist():
                    yield self._example(read, before, np.array([row]), read.origins[log.rows[row]])
            else:
                yield self._example(read, before, now, f"{self.path}, {split}")

    def _example(
        self, read: _Read, before: NDArray[np.int64], now: NDArray[np.int64], origin: str
    ) -> Example:
        log = read.log
        user = log.user_ids[int(log.users[now[0]])]
        both = np.concatenate([before, now])
        items = tuple(log.item_ids[n] for n in log.items[both].tolist())
        # Of both, so that ties can be found among what is chosen.
        times: tuple[float, ...] = ()
        if log.times is not None:
            times = tuple(log.times[both].tolist())
        ratings: tuple[float, ...] = ()
        if log.ratings is not None:
            ratings = tuple(log.ratings[now].tolist())
        columns = read.catalogue.users.get(user, {})
        place = len(before)
        history = UserHistory(user, items[:place], times, columns, read.catalogue)
        name = f"{user}:{int(log.rows[now[0]])}"
        return Example(name, history, Choice(items[place:], ratings), f"{origin}, user {user}")

    def card(self, cache: Path) -> dict[str, Any]:
        """Return the counts, what was left out and why, how ties of time are taken, and splits."""
        read = _read_once(self, stamp_of(self._paths))
        card = dict(read.about)
        for split in self.splits():
            chosen = read.split == HELD_OUT[split]
            card[split] = {
                "interactions": int(chosen.sum()),
                "users": len(np.unique(read.log.users[chosen])),
                "items": len(np.unique(read.log.items[chosen])),
            }
        return card

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the users of a file, with its columns; see ``DataSource.unlabelled``."""
        rows = read_rows(path, self.separator, self.encoding)
        key = find_column(rows, self.user, _USER, "data.user", "the user")
        if key is None:
            raise DataError(path, "has no column of users", "Name it: data.user=COLUMN")
        for row, origin in enumerate(rows.origins):
            columns = {name: values[row] for name, values in rows.columns.items()}
            user = as_category(columns[key])
            # The id is asked by its own name, whatever its column is called.
            others = {name: value for name, value in columns.items() if name != key}
            yield Unlabelled(columns, {"user": user, **others}, origin)

    def reading(self, path: str) -> DataSource | None:
        """Return the source of other users' file; see ``DataSource.reading``."""
        return self.model_copy(update={"path": path})

    # ------------------------------------------------------------------------------------- reading
    def read(self) -> _Read:
        """Return the interactions, filtered and divided."""
        rows = read_rows(self._file, self.separator, self.encoding)
        columns = self._columns(rows)
        log = read_log(rows, columns, skip=self.on_unreadable == "skip")
        lists = dict.fromkeys(self.list_columns, self.list_separator)
        users, _ = self._side("users", self.users or next_to(self._file, ".user"), lists)
        items, titles = self._side("items", self.items or next_to(self._file, ".item"), lists)
        self._filter(log)
        # A fold takes the place of the share.
        fold = None if self.folds is None else (self.fold, self.folds)
        shares = (self.fraction, self.rule.test)
        split = hold_out(self.hold_out, log.users, log.times, shares, self.seed, fold)
        seen: dict[str, tuple[str, ...]] = {}
        for user, own in by_user(log):
            seen[log.user_ids[user]] = tuple(log.item_ids[n] for n in log.items[own].tolist())
        catalogue = Catalogue(items, titles, users, seen)
        about = {
            "source": self.path,
            "licence": self.licence or "not stated",
            **describe_log(log, catalogue, columns, len(rows), last=self.hold_out == "last"),
            "held_out": self.hold_out,
        }
        for warning in about.get("warnings", []):
            say_once(f"{self.path}: {warning}")
        return _Read(log, split, catalogue, rows.origins, about)

    def _columns(self, rows: Rows) -> LogColumns:
        user = find_column(rows, self.user, _USER, "data.user", "the user")
        item = find_column(rows, self.item, _ITEM, "data.item", "the item")
        rating = find_column(rows, self.rating, _RATING, "data.rating", "the rating")
        time = find_column(rows, self.time, _TIME, "data.time", "the time")
        for name, column in (("user", user), ("item", item)):
            if not column:
                raise DataError(
                    f"data.{name}",
                    f"no column has a usual name; there are: {', '.join(rows.columns)}",
                    f"Name it: data.{name}",
                )
        # Known only once the file is read, so the settings could not say it.
        if self.hold_out == "time" and not time:
            raise DataError(
                "data.hold_out", "is time, but there is no column of times", "Name it: data.time"
            )
        for name in ("rating_range", "min_rating"):
            if dict(self)[name] is not None and not rating:
                problem = "has no effect: there is no column of ratings"
                raise DataError(f"data.{name}", problem, "Name it: data.rating")
        assert user is not None
        assert item is not None
        return LogColumns(user, item, rating, time, self.rating_range)

    def _side(
        self, name: Literal["users", "items"], path: str | None, lists: Mapping[str, str]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Return the columns of users or items, and what they are called."""
        if path is None:
            return {}, {}
        rows = read_rows(path, self.separator, self.encoding)
        given, usual = (self.user, _USER) if name == "users" else (self.item, _ITEM)
        key = find_column(rows, given, usual, f"data.{name}", f"the id of {name}")
        if not key:
            problem = f"has no column of ids; there are: {', '.join(rows.columns)}"
            raise DataError(path, problem, f"Call it as in the interactions, or data.{name[:-1]}")
        title = None
        if name == "items":
            title = find_column(rows, self.title, _TITLE, "data.title", "the title")
        left_out = [*self.ignore, *([title] if title else [])]
        found = read_columns_of(rows, key, left_out, {**rows.lists, **lists})
        # An item without a name is shown by its id.
        if not title:
            return found, {}
        ids = map(as_category, rows.columns[key])
        titles = map(as_category, rows.columns[title])
        return found, {own: words for own, words in zip(ids, titles, strict=True) if words}

    def _filter(self, log: Log) -> None:
        if self.min_rating is not None and log.ratings is not None:
            log.keep(log.ratings >= self.min_rating, f"rated less than {self.min_rating:g}")
        # After the ratings, because a repeat may be rated higher than what it repeats.
        if self.repeats != "keep":
            again = find_repeats(log.users, log.items, self.repeats)
            # The data of whoever says so has none.
            if len(again) and self.repeats == "stop":
                user = log.user_ids[int(log.users[again[0]])]
                item = log.item_ids[int(log.items[again[0]])]
                problem = f"user {user!r} has item {item!r} twice ({len(again):,} such rows)"
                raise DataError("data.repeats", problem, "Set last, first or keep")
            kept = np.ones(len(log.users), dtype=np.bool_)
            kept[again] = False
            log.keep(kept, f"repeats of a user's item (the {self.repeats} is kept)")
        if max(self.min_user_interactions, self.min_item_interactions) > 1:
            kept, passes = find_core(
                log.users, log.items, self.min_user_interactions, self.min_item_interactions
            )
            log.keep(kept, f"of users or items with too few, in {passes} passes")
        if not len(log.users):
            raise DataError("data", "its filters leave no interaction", "Lower them")


@lru_cache(maxsize=2)
def _read_once(source: Interactions, stamp: str) -> _Read:
    # A start asks for each split several times.
    return source.read()
