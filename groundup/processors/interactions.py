"""Users and items as numbers, their columns as tensors, and what each user did: what a recommender
travels with.

Shape legend: N items, B users, I numbers, K categories.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.contracts.processors import Processor, ProcessorConfig
from groundup.contracts.recommendation import (
    NOBODY,
    Catalogue,
    RecommendationSizes,
    RecommenderProcessor,
    UserHistory,
)
from groundup.core.errors import DataError, RecipeError, did_you_mean
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.core.values import Batch, CutInputs, Example
from groundup.media.table_values import as_category
from groundup.processors.entity_columns import EntityColumns
from groundup.processors.saved_files import read_json, saved_settings, write_json

__all__ = ["InteractionsConfig", "InteractionsProcessor", "pad", "read_from"]

_COLUMNS = 'Give their columns, or what they did: {"user": "new", "history": [ITEM, ...]}'


class InteractionsProcessor(RecommenderProcessor):
    """Numbers of users and items from 1 on, 0 for those that training has not seen.

    Args:
        users: The users of the training split.
        items: The items of the training split, then those of which only columns are known.
        trained_items: How many items the training split has.
        max_history: The longest history that is read, in items.
        about: Titles, columns and what every user did, for predictions.
        columns: How columns of users and items become tensors.
        popularity: How often training has each item.
        ratings: The mean, the lowest and the highest of the training split; None without ratings.
        notes: What there is to say of the training split.
        latest: When the last interaction of the training split was, in seconds; None without times.
    """

    def __init__(
        self,
        users: Sequence[str],
        items: Sequence[str],
        trained_items: int,
        max_history: int,
        about: Catalogue,
        columns: tuple[EntityColumns, EntityColumns],
        popularity: Sequence[int],
        ratings: tuple[float, float, float] | None = None,
        notes: Sequence[str] = (),
        latest: float | None = None,
    ) -> None:
        self.users = tuple(users)
        self.items = tuple(items)
        self.trained_items = trained_items
        self.max_history = max_history
        self.about = about
        self.user_columns, self.item_columns_reader = columns
        self.popularity = np.array([0, *popularity], dtype=np.int64)
        self.ratings = ratings
        self.notes = tuple(notes)
        self.latest = latest
        self.cut: CutInputs = CutInputs()
        self._users = {name: n for n, name in enumerate(self.users, 1)}
        self._items = {name: n for n, name in enumerate(self.items, 1)}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of a user's columns."""
        return (self.user_columns.width,)

    @property
    def sizes(self) -> RecommendationSizes:
        return RecommendationSizes(
            len(self.users),
            len(self.items),
            self.trained_items,
            self.max_history,
            self.user_columns.width,
            self.user_columns.category_sizes,
            self.item_columns_reader.width,
            self.item_columns_reader.category_sizes,
        )

    def with_max_history(self, longest: int) -> InteractionsProcessor:
        """Return the processor with another length of the histories that are read."""
        # A base run may share it.
        found = copy.copy(self)
        found.max_history = longest
        return found

    def with_rows(self, rows: Sequence[NDArray[np.int64]]) -> InteractionsProcessor:
        """Return the processor with what training users did."""
        found = copy.copy(self)
        found.rows = tuple(rows)
        return found

    # ------------------------------------------------------------------------------------- numbers
    def user_number(self, user: str) -> int:
        """Return the number of a user; 0 for one that training has not seen."""
        return self._users.get(user, NOBODY)

    def item_number(self, item: str) -> int:
        """Return the number of an item; 0 for one of which nothing is known."""
        return self._items.get(item, NOBODY)

    def item_numbers(self, items: Sequence[str]) -> NDArray[np.int64]:
        """Return the number of each item that is known; others are left out and counted."""
        found = np.array([self._items.get(item, NOBODY) for item in items], dtype=np.int64)
        # An unknown item would be read as the start of the history.
        unknown = int((found == NOBODY).sum())
        if unknown:
            example = items[int((found == NOBODY).argmax())]
            what = "items of histories are not known, and left out"
            self.cut.count(what, unknown, f"such as {example!r}")
        known: NDArray[np.int64] = found[found != NOBODY]
        return known

    def title(self, number: int) -> str:
        """Return what an item is called; its id where it has no name."""
        item = self.items[number - 1]
        return self.about.titles.get(item, item)

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``users`` (B,), ``tokens`` (B, T) with ``lengths`` (B,), and the users' columns:
        ``numbers`` (B, I) and ``categories`` (B, K).

        Histories are cut to the last ``max_history`` items; 0 comes before the first of a whole
        one.
        """
        asked = [self.as_history(each) for each in inputs]
        rows = [self.item_numbers(each.items) for each in asked]
        return self.encode_users(asked) | pad([read_from(row, self.max_history) for row in rows])

    def encode_users(self, asked: Sequence[UserHistory]) -> Batch:
        """Return ``users`` (B,) int64 and the tensors of their columns."""
        numbers = [self.user_number(each.user) for each in asked]
        columns = self.user_columns.encode([each.columns for each in asked])
        return {"users": torch.tensor(numbers, dtype=torch.int64), **columns}

    def item_columns(self) -> Batch:
        known = [self.about.items.get(item, {}) for item in self.items]
        return self.item_columns_reader.encode([{}, *known])

    # ----------------------------------------------------------------------------------- questions
    def as_history(self, given: Any) -> UserHistory:
        """Return a question as a user with what they did.

        Args:
            given: A user's history; the id of a user of the data; or a dictionary with ``user``,
                ``history`` and columns.

        Raises:
            DataError: If it is a user of whom nothing is known.
        """
        if isinstance(given, UserHistory):
            return given
        if not isinstance(given, Mapping):
            return self._known(as_category(given))
        user = as_category(given.get("user", ""))
        columns = {k: v for k, v in given.items() if k not in ("user", "history", "item")}
        # A file of users may have columns that training has not.
        columns = {k: v for k, v in columns.items() if k in self.user_columns.names}
        if "history" in given:
            history = given["history"]
            if isinstance(history, str) or not isinstance(history, Sequence):
                problem = f"history is {history!r:.60}; allowed: a list of items"
                raise DataError(f"user {user!r}", problem, "Write [ITEM, ITEM], the latest last")
            items = tuple(as_category(each) for each in history)
            # One unknown item is left out and counted; of none known nothing can be said.
            if items and not any(each in self._items for each in items):
                hint = did_you_mean(items[-1], self.items)
                problem = f"no item of the history is known, such as {items[-1]!r}; {hint}".strip()
                raise DataError(f"user {user!r}", problem, "Name items of the training data")
            return UserHistory(user, items, (), columns, self.about)
        if user in self.about.seen:
            known = self._known(user)
            return UserHistory(user, known.items, (), {**known.columns, **columns}, self.about)
        if not columns:
            raise self._unknown(user)
        return UserHistory(user, (), (), columns, self.about)

    def _known(self, user: str) -> UserHistory:
        seen = self.about.seen.get(user)
        columns = self.about.users.get(user, {})
        if seen is None and not columns:
            raise self._unknown(user)
        return UserHistory(user, tuple(seen or ()), (), columns, self.about)

    def _unknown(self, user: str) -> DataError:
        hint = did_you_mean(user, self.about.seen)
        problem = f"is not one of the {len(self.about.seen):,} users of the data; {hint}".strip()
        return DataError(f"user {user!r}", problem, _COLUMNS)

    # --------------------------------------------------------------------------------------- files
    def save(self, folder: Path) -> None:
        """Write processor.json, and what is known of users and items next to it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.user_columns.save(folder / "users")
        self.item_columns_reader.save(folder / "items")
        # By number: the ids of items would be repeated in every history.
        numbers = {name: n for n, name in enumerate(self.items)}
        extra = sorted({i for seen in self.about.seen.values() for i in seen if i not in numbers})
        numbers |= {name: n for n, name in enumerate(extra, len(numbers))}
        write_json(
            folder / "processor.json",
            {
                "name": "interactions",
                "trained_items": self.trained_items,
                "max_history": self.max_history,
                "ratings": self.ratings,
                "notes": self.notes,
                "latest": self.latest,
                "users": self.users,
                "items": self.items,
                "popularity": self.popularity[1:].tolist(),
            },
        )
        _write_line(
            folder / "catalogue.json",
            {
                "titles": self.about.titles,
                "items": self.about.items,
                "users": self.about.users,
                "other_items": extra,
                "seen": {u: [numbers[i] for i in seen] for u, seen in self.about.seen.items()},
                # What was held out must not be counted, so these are not what was seen.
                "rows": None if self.rows is None else [row.tolist() for row in self.rows],
            },
        )

    @classmethod
    def load(cls, folder: Path) -> InteractionsProcessor:
        """Return the processor that ``save`` wrote to ``folder``.

        Raises:
            DataError: If a file is missing or damaged.
        """
        known = read_json(folder / "catalogue.json")
        with saved_settings(folder) as saved:
            names = [*saved["items"], *known["other_items"]]
            seen = {u: tuple(names[n] for n in own) for u, own in known["seen"].items()}
            about = Catalogue(known["items"], known["titles"], known["users"], seen)
            columns = tuple(EntityColumns.load(folder / name) for name in ("users", "items"))
            found = cls(
                saved["users"],
                saved["items"],
                saved["trained_items"],
                saved["max_history"],
                about,
                (columns[0], columns[1]),
                saved["popularity"],
                None if saved["ratings"] is None else tuple(saved["ratings"]),
                saved["notes"],
                saved.get("latest"),  # which older runs have not
            )
        rows = known.get("rows")
        if rows is not None:
            found.rows = tuple(np.array(row, dtype=np.int64) for row in rows)
        return found


def _write_line(path: Path, value: object) -> None:
    # A line a number would make a file of megabytes one of many more.
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")


def read_from(row: NDArray[np.int64], longest: int) -> NDArray[np.int64]:
    """Return what is read of a history: its last items, and 0 in front where it is whole."""
    return np.concatenate([np.zeros(1, np.int64), row])[-longest:]


def pad(rows: Sequence[NDArray[np.int64]]) -> dict[str, Tensor]:
    """Return ``tokens`` (B, T) int64 padded with 0, and ``lengths`` (B,)."""
    longest = max((len(row) for row in rows), default=1)
    tokens = np.zeros((len(rows), longest), np.int64)
    for n, row in enumerate(rows):
        tokens[n, : len(row)] = row
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    return {"tokens": torch.from_numpy(tokens), "lengths": lengths}


@processor("interactions")
class InteractionsConfig(ProcessorConfig):
    """Numbers for the users and items of the training split, and their columns as tensors."""

    reads: ClassVar = "examples"
    min_count: int = setting(
        2, "Rarer values of columns are taken together as the unknown one", ge=1
    )

    def fit(self, texts: Callable[[], Iterator[Any]]) -> InteractionsProcessor:
        """Return the processor of the training split.

        Raises:
            DataError: If there are no interactions.
            RecipeError: If the data holds no interactions.
        """
        users: dict[str, None] = {}
        counts: dict[str, int] = {}
        ratings: list[float] = []
        about: Catalogue | None = None
        latest: float | None = None
        for example in texts():
            if not isinstance(example, Example) or not isinstance(example.inputs, UserHistory):
                raise RecipeError(
                    "recipe.processor",
                    "reads interactions, which the data has none of",
                    "Set data: interactions",
                )
            # In the order of the examples, which is the same at every reading.
            users[example.inputs.user] = None
            about = about or example.inputs.catalogue
            ratings += example.target.ratings
            # They are sorted: the last time is that of the last item.
            for time in example.inputs.times[-1:]:
                latest = time if latest is None else max(latest, time)
            for item in example.target.items:
                counts[item] = counts.get(item, 0) + 1
        if not counts:
            raise DataError("recipe.processor", "there are no training examples", "Check the data")
        about = about or Catalogue({}, {}, {}, {})
        # Behind those that were trained, so that one number tells them apart.
        others = [item for item in about.items if item not in counts]
        items = [*counts, *others]
        trained = [about.users.get(user, {}) for user in users]
        columns = (
            EntityColumns.fit("users", trained, self.min_count),
            EntityColumns.fit("items", [about.items.get(i, {}) for i in items], self.min_count),
        )
        notes = [*columns[0].notes, *columns[1].notes]
        if others:
            notes.append(
                f"{len(others):,} items have columns but no training interaction: only models that"
                " read columns can recommend them"
            )
        rated = None
        if ratings:
            rated = (sum(ratings) / len(ratings), min(ratings), max(ratings))
        popularity = [*counts.values(), *[0] * len(others)]
        return InteractionsProcessor(
            list(users),
            items,
            len(counts),
            1,
            about,
            columns,
            popularity,
            rated,
            notes,
            latest,
        )

    @classmethod
    def load(cls, folder: Path) -> Processor:
        """Return the processor that was saved to ``folder``."""
        return InteractionsProcessor.load(folder)
