"""What a data card says that its reader should not miss: files and rows that are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from groundup.contracts.processors import Processor
from groundup.reports.reward_curves import MADE_BY_WEIGHTS
from groundup.runs.run import Run

__all__ = ["data_notes", "write_data_card"]


def write_data_card(
    run: Run,
    card: dict[str, Any],
    processor: Processor,
    step: int,
    *,
    made_by_weights: bool = False,
) -> None:
    """Write a run's data card, and say what its reader should not miss.

    Args:
        run: The run.
        card: The data card of the source.
        processor: What it warned of belongs to the data too.
        step: The step that the run is at.
        made_by_weights: Whether the model makes the examples that it learns from.
    """
    cut = processor.cut.notes() if processor.cut is not None else ()
    card["warnings"] = [*card.get("warnings", ()), *processor.notes, *cut]
    # A report reads files alone, and must know which losses compare.
    if made_by_weights:
        card[MADE_BY_WEIGHTS] = True
    run.write_json("data_card.json", card)
    for note in data_notes(card):
        run.event(step, note)


def data_notes(card: Mapping[str, Any], name: str = "data") -> Iterator[str]:
    """Yield a line for each kind of thing: which files were left out, what was met in those that
    are read, and what looks like a mistake; of each part of a mixture.

    Args:
        card: The data card.
        name: What to call the source where the card does not say.
    """
    source = str(card.get("source", name))
    files = card.get("files")
    if isinstance(files, Mapping) and files.get("left_out"):
        kinds = files.get("other_kinds")
        reasons = [
            f"{count:,} {reason}" + (f" ({kinds})" if reason == "of other kinds" else "")
            for reason, count in files["left_out"].items()
        ]
        read = f"{source}: of {files['found']:,} files {files['read']:,} are read"
        yield f"{read}; left out: {', '.join(reasons)}"
    rows = card.get("rows")
    if isinstance(rows, Mapping) and rows.get("left_out"):
        reasons = [f"{count:,} {reason}" for reason, count in rows["left_out"].items()]
        read = f"{source}: of {rows['found']:,} rows {rows['read']:,} are read"
        yield f"{read}; left out: {', '.join(reasons)}"
    if met := card.get("met_in_files"):
        found = ", ".join(f"{what} {count:,}" for what, count in met.items())
        yield f"{source}: found in the files: {found}"
    if unused := card.get("arrays_not_used"):
        yield f"{source}: arrays that are not used: {', '.join(unused)}"
    if unused := card.get("columns_not_used"):
        yield f"{source}: columns that are not used: {', '.join(unused)}"
    for warning in card.get("warnings", ()):
        yield f"{source}: {warning}"
    for key, part in card.items():
        if isinstance(part, Mapping) and key not in ("files", "rows"):
            yield from data_notes(part, key)
