"""Which side of a split each example is on: by a keyed share of all or of each label, by one of
several folds, or by time; with what belongs together on one side.

Legend: N examples.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.values import Split
from groundup.data.splitting.hash_split import UnionFind, position_of, split_of
from groundup.media.find_format import look_at
from groundup.media.table_values import as_category

__all__ = ["SplitRule", "are_numbers", "say_once", "split_by_time", "split_examples"]

# groups a number must have on average to be a class, as ratings are
_PER_CLASS = 3
_UNEVEN = 4  # expected of a label, from which on half or twice as many are worth a word
_SEEDS = 200  # tried
_NAMED = 10  # labels that a warning names
_log = logging.getLogger("groundup")


class SplitRule(NamedTuple):
    """How examples are held out: shares of the groups, drawn within each label with ``stratify``,
    or the latest; or with ``folds`` those of fold number ``fold``, from 0."""

    fraction: float
    seed: int
    test: float = 0.0
    folds: int | None = None
    fold: int = 0
    stratify: bool = False
    latest: bool = False

    def side_of(self, group: str) -> Split:
        """Return the side of one group by its keyed hash."""
        return split_of(group, self.fraction, self.seed, self.test)

    def splits(self, named: Iterable[Split]) -> tuple[Split, ...]:
        """Return the splits there are where some have examples of their own."""
        there = set(named)
        if self.fraction or self.folds:
            there.add("validation")
        if self.test:
            there.add("test")
        return ("train", *(split for split in ("validation", "test") if split in there))

    def without(self, named: Iterable[Split]) -> SplitRule:
        """Return the rule without the shares of splits that have examples of their own."""
        there = set(named)
        rule = self
        if "validation" in there:
            rule = rule._replace(fraction=0.0, folds=None)
        return rule._replace(test=0.0) if "test" in there else rule

    def seed_with(self, split: Split, groups: Collection[str]) -> int | None:
        """Return the next seed by which some groups are a split that is drawn, and some are trained
        on; None if there is none, or another way of drawing."""
        if self.folds or self.stratify or self.latest:
            return None
        for seed in range(self.seed + 1, self.seed + 1 + _SEEDS):
            sides = {self._replace(seed=seed).side_of(group) for group in groups}
            if {split, "train"} <= sides:
                return seed
        return None

    def problem(self, changed: Sequence[str]) -> str | None:
        """Return what contradicts itself, as ``"problem. remedy"``, or None.

        Args:
            changed: Those of fraction and fold that were given.
        """
        if self.folds is not None and (self.stratify or self.latest):
            idle = "time_column" if self.latest else "stratify"
            return f"{idle} has no effect with folds. Remove one of them"
        if self.folds is None:
            idle = "fold has no effect without folds. Give folds, or remove it"
            return idle if "fold" in changed else None
        if "fraction" in changed:
            return "fraction has no effect with folds. Remove one of them"
        if self.fold >= self.folds:
            return f"fold {self.fold} of {self.folds}; allowed: 0 to {self.folds - 1}. Correct it"
        return None

    def __str__(self) -> str:
        if self.folds:
            return f"fold {self.fold} of {self.folds}"
        how = ", by time" if self.latest else ""
        return f"fraction {self.fraction}" + (f", test {self.test}" if self.test else "") + how


def split_examples(
    keys: Sequence[tuple[str, ...]],
    labels: Sequence[Any],
    rule: SplitRule,
    times: Sequence[float] = (),
) -> list[Split]:
    """Return the side of each example; examples that share a key, such as a speaker or a text, are
    on one side.

    A share is drawn by a keyed hash of each group's name, so that more data moves none to the other
    side. A class that would be on one side only has its nearest group moved. With ``stratify`` the
    share is drawn within each label, in the order of the same hashes. Folds are as even as can be,
    of each label too: groups are dealt out in turn, label by label, in the order of their hashes.

    Args:
        keys: (N,) what each example belongs to, one name at least.
        labels: (N,) what is predicted, or None; folds are even in it.
        rule: What is held out.
        times: (N,) where the rule holds out the latest, whatever the keys are.
    """
    if rule.latest:
        return split_by_time(times, rule)
    # one class in several spellings is one class
    spelt = {each: as_category(each) for each in {e for e in labels if isinstance(e, str | bytes)}}
    labels = [spelt[e] if isinstance(e, str | bytes) else e for e in labels]
    group_of = _join_groups(keys)
    names: dict[int, str] = {}
    for first, own in zip(group_of, keys, strict=True):
        names[first] = min(names.get(first, own[0]), *own)
    sides: dict[int, Split]
    if rule.folds is None:
        sides = {first: rule.side_of(name) for first, name in names.items()}
        if rule.stratify:
            sides = _draw_within_labels(names, labels, rule)
        if rule.fraction or rule.test:
            _put_classes_on_both_sides(sides, names, group_of, labels, rule)
    else:
        order = sorted(
            names,
            key=lambda first: (str(labels[first]), seeding.key(rule.seed, f"fold {names[first]}")),
        )
        held_out = {first for place, first in enumerate(order) if place % rule.folds == rule.fold}
        sides = {first: "validation" if first in held_out else "train" for first in order}
        # a test share comes out of what the fold leaves, and is the same in every fold's run
        for first in set(order) - held_out if rule.test else ():
            sides[first] = split_of(f"test {names[first]}", 0.0, rule.seed, rule.test)
    return [sides[first] for first in group_of]


def split_by_time(times: Sequence[float], rule: SplitRule) -> list[Split]:
    """Return the side of each example by its time: the latest are the test, and those before them
    validation; examples of one time are on one side."""
    # by the time at which a share begins, not by counting rows: rows of one moment, such as the
    # items of an order, would be cut in two
    ordered = sorted(times)

    def begin_of(share: float) -> float:
        return ordered[-max(1, round(len(ordered) * share))] if share and ordered else math.inf

    test_begins = begin_of(rule.test)
    validation_begins = begin_of(rule.fraction + rule.test) if rule.fraction else test_begins
    sides: list[Split] = []
    for time in times:
        if time >= test_begins:
            sides.append("test")
        else:
            sides.append("validation" if time >= validation_begins else "train")
    return sides


def _join_groups(keys: Sequence[tuple[str, ...]]) -> list[int]:
    """Return (N,) the number of the first example that each belongs together with."""
    first_with: dict[str, int] = {}
    if all(len(own) == 1 for own in keys):
        # what most sources have, and several times as quick as joining sets
        return [first_with.setdefault(own[0], number) for number, own in enumerate(keys)]
    sets = UnionFind()
    for number, own in enumerate(keys):
        for key in own:
            sets.join(first_with.setdefault(key, number), number)
    return [sets.find(number) for number in range(len(keys))]


def _draw_within_labels(
    names: dict[int, str], labels: Sequence[Any], rule: SplitRule
) -> dict[int, Split]:
    """Return the side of each group, by the label of its first example.

    Of each label its share is held out, rounded so that all shares together are that of the whole;
    the last group of a label is never held out.

    Raises:
        DataError: If hardly two examples have the same label, or one has several.
    """
    groups: dict[str, list[int]] = {}
    for first in names:
        if isinstance(labels[first], list):
            raise DataError(
                "recipe.data.stratify",
                "examples have several labels each, which no share is even in",
                "Remove it",
            )
        groups.setdefault(str(labels[first]), []).append(first)
    most = len(names) / 2
    if len(groups) * _PER_CLASS > len(names) and are_numbers(groups):
        most = len(names) / _PER_CLASS
    if len(groups) > max(2, most):
        raise DataError(
            "recipe.data.stratify",
            f"{len(names)} groups of examples have {len(groups)} different labels",
            "Remove it: numbers have no shares",
        )
    ordered = {
        label: sorted(own, key=lambda first: position_of(names[first], rule.seed))
        for label, own in sorted(groups.items())
    }
    sides: dict[int, Split] = dict.fromkeys(names, "train")
    taken = dict.fromkeys(ordered, 0)
    # validation takes the lowest positions and the test those above, as without labels
    shares: tuple[tuple[Split, float], ...] = (("validation", rule.fraction), ("test", rule.test))
    for split, share in shares:
        room = {label: len(own) - 1 - taken[label] for label, own in ordered.items()}
        wanted = {label: share * len(own) for label, own in ordered.items()}
        counts = {label: min(room[label], int(amount)) for label, amount in wanted.items()}
        missing = round(share * len(names)) - sum(counts.values())
        # the largest remainders first, so that rare labels together have their share as well
        for label in sorted(ordered, key=lambda each: counts[each] - wanted[each]):
            if missing > 0 and counts[label] < min(room[label], wanted[label]):
                counts[label] += 1
                missing -= 1
        for label, own in ordered.items():
            begin = taken[label]
            for first in own[begin : begin + counts[label]]:
                sides[first] = split
            taken[label] += counts[label]
    return sides


def _put_classes_on_both_sides(
    sides: dict[int, Split],
    names: dict[int, str],
    group_of: Sequence[int],
    labels: Sequence[Any],
    rule: SplitRule,
) -> None:
    """Move single groups so that each class is trained on, and one that is common enough held
    out."""
    groups: dict[str, set[int]] = {}
    for label, first in zip(labels, group_of, strict=True):
        if isinstance(label, str | int):
            groups.setdefault(str(label), set()).add(first)
    # numbers to predict have nearly as many values as there are examples, and are no classes
    if len(groups) * _PER_CLASS > len(names) and are_numbers(groups):
        return
    alone = []
    uneven = ""
    for label, own in sorted(groups.items()):
        wanted = rule.fraction * len(own)
        count = sum(sides[first] == "validation" for first in own)
        if not any(sides[first] == "train" for first in own):
            # the nearest to the border moves: with another share it would be there by itself
            last = max(own, key=lambda first: position_of(names[first], rule.seed))
            sides[last] = "train"
            if len(own) == 1:
                alone.append(label)
        # by the class alone: its split must not depend on how many others there are
        elif not count and wanted >= 1:
            trained = [first for first in own if sides[first] == "train"]
            if len(trained) > 1:
                nearest = min(trained, key=lambda first: position_of(names[first], rule.seed))
                sides[nearest] = "validation"
                count = 1
        if wanted >= _UNEVEN and not wanted / 2 <= count <= 2 * wanted and not uneven:
            uneven = f"label {label}: {count} of {len(own)} are held out for validation"
    if alone:
        named = ", ".join(alone[:_NAMED]) + (" ..." if len(alone) > _NAMED else "")
        say_once(
            f"labels with a single example or group ({len(alone)}: {named}): it stays in training,"
            " and they are not validated on"
        )
    if uneven:
        say_once(f"{uneven} by chance; with data.stratify: true it is the same share of each label")


def are_numbers(labels: Iterable[str]) -> bool:
    """Whether labels are numbers to predict, and no names of classes."""
    return look_at("labels", dict.fromkeys(labels, 1)).kind == "numeric"


@lru_cache(maxsize=100)
def say_once(message: str) -> None:
    """Warn of something that is found at each reading of the same data."""
    # a start draws several times: for each split, and for the card
    _log.warning("%s", message)
