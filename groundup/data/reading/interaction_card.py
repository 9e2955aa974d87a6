"""What a data card says of interactions: counts, what was left out, ties, and items without
columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.recommendation import Catalogue
from groundup.data.reading.interaction_log import Log, LogColumns

__all__ = ["by_user", "describe_log"]

_NAMED = 3  # items that a message names
_FEWEST = 3  # interactions of a user of whom some are held out


def describe_log(
    log: Log, catalogue: Catalogue, columns: LogColumns, count: int, *, last: bool
) -> dict[str, Any]:
    """Return the counts for a data card, and warnings.

    Args:
        log: The interactions that are used.
        catalogue: What is known besides.
        columns: The columns that were read.
        count: How many rows there were.
        last: Whether the last interactions of each user are held out.
    """
    of_user = np.bincount(log.users)
    of_item = np.bincount(log.items)
    users = int((of_user > 0).sum())
    items = int((of_item > 0).sum())
    card: dict[str, Any] = {
        "columns": {k: v for k, v in vars(columns).items() if v is not None},
        "rows": count,
        "interactions": len(log.users),
        "users": users,
        "items": items,
        "density": round(len(log.users) / (users * items), 6),
        "interactions_of_a_user": _spread(of_user[of_user > 0]),
        "interactions_of_an_item": _spread(of_item[of_item > 0]),
    }
    if left := +log.left_out:
        card["left_out"] = dict(sorted(left.items()))
    if log.ratings is not None:
        card["ratings"] = {
            "least": float(log.ratings.min()),
            "mean": round(float(log.ratings.mean()), 4),
            "highest": float(log.ratings.max()),
        }
    warnings = list(_unknown_items(log, catalogue, of_item))
    if log.times is not None:
        card["users_whose_last_two_are_at_one_time"] = tied = _count_ties(log)
        if last and tied:
            warnings.append(
                f"{tied:,} of {users:,} users have two last interactions of the same time: the"
                " row that comes later is taken as the last"
            )
    few = int(((of_user > 0) & (of_user < _FEWEST)).sum())
    if last and few:
        warnings.append(
            f"{few:,} of {users:,} users have fewer than {_FEWEST} interactions: they are trained"
            " on, and nothing of them is held out"
        )
    if warnings:
        card["warnings"] = warnings
    return card


def by_user(log: Log) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each user's number, and the places of their interactions."""
    order = np.arange(len(log.users))
    cuts = np.flatnonzero(np.diff(log.users)) + 1
    for own in np.split(order, cuts):
        yield int(log.users[own[0]]), own


def _spread(counts: NDArray[np.int64]) -> dict[str, float]:
    return {
        "least": int(counts.min()),
        "median": float(np.median(counts)),
        "most": int(counts.max()),
    }


def _count_ties(log: Log) -> int:
    assert log.times is not None
    found = 0
    for _, own in by_user(log):
        found += len(own) > 1 and bool(log.times[own[-1]] == log.times[own[-2]])
    return found


def _unknown_items(log: Log, catalogue: Catalogue, counts: NDArray[np.int64]) -> Iterator[str]:
    """Yield what there is to say of items and users of which no file knows anything."""
    sides = (
        ("items", catalogue.items, log.item_ids, counts),
        ("users", catalogue.users, log.user_ids, np.bincount(log.users)),
    )
    for what, known, ids, each in sides:
        lacking = [n for n, own in enumerate(ids) if n < len(each) and each[n] and own not in known]
        if known and lacking:
            named = ", ".join(f"{ids[n]!r} ({int(each[n]):,})" for n in lacking[:_NAMED])
            yield (
                f"{len(lacking):,} {what} of the interactions are not in the file of {what}:"
                f" {named}{', ...' if len(lacking) > _NAMED else ''}; they have no columns"
            )
