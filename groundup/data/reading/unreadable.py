"""What becomes of pictures and sounds that cannot be read: an error, or left out and said."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from groundup.core.errors import DataError

__all__ = ["refuse_unreadable", "warn_of_unreadable"]

_NAMED = 20  # files that a warning names
_log = logging.getLogger("groundup")


def refuse_unreadable(bad: Sequence[tuple[str, str]], what: str, on_unreadable: str) -> None:
    """Raise an error for files that cannot be read, unless they are to be left out.

    Args:
        bad: Each with what is wrong with it.
        what: What they are, in the plural, such as ``pictures``.
        on_unreadable: The source's setting.

    Raises:
        DataError: Naming the first, and how many others there are.
    """
    if not bad or on_unreadable == "skip":
        return
    where, problem = bad[0]
    if len(bad) > 1:
        problem += f" ({len(bad) - 1:,} other {what} too)"
    raise DataError(
        where, problem, "Replace or remove it, or set data.on_unreadable: skip to leave such out"
    )


def warn_of_unreadable(place: str, names: Iterable[str], what: str) -> None:
    """Log which files are left out, if any are."""
    bad = sorted(names)
    if bad:
        shown = ", ".join(bad[:_NAMED])
        _log.warning(f"{place}: {len(bad):,} unreadable {what} are left out: {shown}")
