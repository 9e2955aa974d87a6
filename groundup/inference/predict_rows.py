"""What a run predicts of the rows of a file, or the files of a folder, and files of that."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.contracts.data import Unlabelled
from groundup.core.errors import DataError, RunError
from groundup.core.storage import Storage
from groundup.inference.predictor import Predictor
from groundup.inference.remedies import remedy_after_training

__all__ = [
    "PICTURE_KIND",
    "check_out",
    "predict_rows",
    "to_lines",
    "unlabelled_prompts",
    "write_rows",
]

Row = dict[str, Any]
# rows that are predicted at a time
_TOGETHER = 64
_SHOWN = 5
_KINDS = (".csv", ".jsonl")
PICTURE_KIND = ".png"
"""How the name of a file ends that holds a predicted picture."""


def predict_rows(
    predictor: Predictor,
    rows: Iterable[Unlabelled],
    *,
    limit: int | None = None,
    on_unreadable: str = "stop",
    progress: Callable[[str], None] = lambda message: None,
    **options: Any,
) -> list[Row]:
    """Return for each row its own columns and what is predicted, in order.

    Args:
        predictor: An opened run.
        rows: What to predict from.
        limit: Predict of the first N rows alone.
        on_unreadable: ``stop``, or ``skip``: rows that cannot be read are left out and counted.
        progress: Called with what was left out.
        **options: Of the task's prediction.

    Raises:
        DataError: If a row cannot be read, or none can; or a row has a column that is predicted.
    """
    if on_unreadable not in ("stop", "skip"):
        raise DataError(
            "on_unreadable", f"got {on_unreadable!r}; allowed: stop, skip", "Choose one"
        )
    if limit is not None and limit < 1:
        raise DataError("limit", f"got {limit}; allowed: 1 or more", "Leave it out to predict all")
    with predictor.noting_what_is_cut():
        return _predict_all(predictor, iter(rows), limit, on_unreadable, progress, options)


def _predict_all(
    predictor: Predictor,
    given: Iterator[Unlabelled],
    limit: int | None,
    on_unreadable: str,
    progress: Callable[[str], None],
    options: dict[str, Any],
) -> list[Row]:
    found: list[Row] = []
    unreadable: list[DataError] = []
    total = 0
    while batch := list(islice(given, _TOGETHER)):
        wanted = batch if limit is None else batch[: max(limit - total, 0)]
        total += len(batch)
        for row, predicted in _predict_batch(predictor, wanted, options):
            if isinstance(predicted, DataError):
                if on_unreadable == "stop":
                    raise predicted
                unreadable.append(predicted)
                continue
            taken = next((name for name in predicted if name in row.columns), None)
            if taken is not None:
                raise DataError(
                    row.origin,
                    f"has a column {taken!r}, which is the name of what is predicted",
                    "Rename that column",
                )
            found.append({**row.columns, **predicted})
    if unreadable and not found:
        raise unreadable[0]
    if limit is not None and limit < total:
        progress(f"predicted {limit:,} of {total:,} rows, the first ones")
    if unreadable:
        named = "; ".join(f"{error.where}: {error.problem}" for error in unreadable[:_SHOWN])
        more = f" and {len(unreadable) - _SHOWN:,} more" if len(unreadable) > _SHOWN else ""
        progress(
            f"{len(unreadable):,} of {total:,} rows cannot be read and are left out: {named}{more}"
        )
    return found


def unlabelled_prompts(prompts: Iterable[Any]) -> Iterator[Unlabelled]:
    """Yield prompts as rows of one column, ``input``."""
    for number, prompt in enumerate(prompts, 1):
        yield Unlabelled({"input": prompt}, prompt, f"prompt {number}")


def _predict_batch(
    predictor: Predictor, rows: list[Unlabelled], options: dict[str, Any]
) -> Iterator[tuple[Unlabelled, Row | DataError]]:
    """Yield each row with what is predicted of it, or why nothing is."""
    readable = [row for row in rows if not row.problem]
    try:
        together = iter(predictor.tabulate([row.inputs for row in readable], **options))
    except DataError:
        # One by one, to find out which: the others are predicted all the same.
        together = None
    for row in rows:
        if row.problem:
            yield row, _unreadable(row, row.problem, row.remedy)
        elif together is not None:
            yield row, next(together)
        else:
            try:
                yield row, predictor.tabulate([row.inputs], **options)[0]
            except DataError as error:
                yield row, _unreadable(row, error.problem, error.remedy)


def _unreadable(row: Unlabelled, problem: str, remedy: str) -> DataError:
    remedy = f"{remedy_after_training(remedy)}, or leave such out: --on-unreadable skip"
    return DataError(row.origin, problem, remedy)


# ------------------------------------------------------------------------------------------ writing
def check_out(out: Path, *, force: bool) -> None:
    """Make sure, before anything is computed, that a file of predictions can be written.

    Raises:
        RunError: If the file exists, is of another kind, or would be in no folder.
    """
    if out.suffix.lower() not in (*_KINDS, PICTURE_KIND):
        raise RunError(
            str(out),
            f"ends in {out.suffix!r}, but predictions are written to {' or '.join(_KINDS)}, and"
            f" pictures to {PICTURE_KIND}",
            "Choose one of these",
        )
    if out.is_dir() or (out.exists() and not force):
        raise RunError(
            str(out),
            "exists already and was not touched",
            "Choose another --out, or replace it with --force",
        )
    if not out.parent.is_dir():
        raise RunError(str(out), f"there is no folder {out.parent}", "Make it, or correct --out")


def write_rows(rows: list[Row], out: Path) -> None:
    """Write predictions to a .csv or .jsonl file, by one rename."""
    if out.suffix.lower() == ".csv":
        text = _to_csv(rows)
    else:
        text = "".join(f"{line}\n" for line in to_lines(rows))
    storage = Storage()
    temporary = out.with_name(f".{out.name}.writing")
    try:
        storage.write_bytes(temporary, text.encode("utf-8", "replace"))
        storage.rename(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def to_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield each row as one line of JSON."""
    for row in rows:
        yield json.dumps(_to_json(row), ensure_ascii=False)


def _to_csv(rows: list[Row]) -> str:
    flat = [_flatten(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in flat:
        writer.writerow([_to_cell(row.get(name)) for name in names])
    return text.getvalue()


def _flatten(row: Row) -> Row:
    """Return a row with a column for each of several numbers: ``probability_cat``."""
    flat: Row = {}
    for name, value in row.items():
        if isinstance(value, Mapping) and all(isinstance(each, float) for each in value.values()):
            one = name.replace("probabilities", "probability")
            flat |= {f"{one}_{each}": number for each, number in value.items()}
        else:
            flat[name] = value
    return flat


def _to_cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list | tuple | Mapping | bool):
        return json.dumps(_to_json(value), ensure_ascii=False)
    return str(value)


def _to_json(value: Any) -> Any:
    """Return a value as JSON has it: no NaN, and whatever is of no kind of JSON's as text."""
    if isinstance(value, Mapping):
        return {str(name): _to_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    plain = value is None or isinstance(value, str | int | float)
    return value if plain else str(value)
