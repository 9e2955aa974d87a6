"""What ``groundup predict`` is given, prompts or a file, and what it writes."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup import api
from groundup.cli.streams import read_lines
from groundup.contracts.detection import DrawsPredictions
from groundup.contracts.recommendation import MakesLists
from groundup.contracts.tasks import Picture
from groundup.core.errors import DataError, GroundupError
from groundup.core.settings import as_path
from groundup.inference.predict_pictures import picture_files, write_pictures
from groundup.inference.predict_rows import (
    PICTURE_KIND,
    check_out,
    predict_rows,
    to_lines,
    unlabelled_prompts,
    write_rows,
)
from groundup.inference.predictor import Predictor

__all__ = ["Output", "print_predictions", "refuse_mistakes"]

# Kinds of files that hold rows or texts, some of which are refused with what to do; a picture
# alone is an input like any other.
_ROWS = re.compile(
    r"\S.*\.(csv|tsv|tab|jsonl|ndjson|json|parquet|pq|npz|txt|text|md|html?|eml|mbox"
    r"|xlsx?|xlsm|xlsb|ods|numbers|docx?|odt|pdf)(\.(gz|bz2|xz|zst))?",
    re.IGNORECASE,
)
_ON_UNREADABLE = (None, "stop", "skip")


class Output:
    """Where predictions go, and of how many rows.

    Args:
        out: The file to write; None: standard output.
        force: Whether it may be replaced.
        limit: How many rows at most.
        on_unreadable: ``stop``, ``skip``, or None: as in the run's data.
        settings: Of the file that is read, where they are others than of the run's data.
    """

    def __init__(
        self,
        out: Path | None,
        force: bool,
        limit: int | None,
        on_unreadable: str | None,
        settings: Mapping[str, Any],
    ) -> None:
        self.out = out
        self.force = force
        self.limit = limit
        self.on_unreadable = on_unreadable
        self.settings = settings

    @property
    def is_picture(self) -> bool:
        """Whether what is predicted is written as a picture."""
        return self.out is not None and self.out.suffix.lower() == PICTURE_KIND


def refuse_mistakes(prompts: Sequence[str], output: Output) -> None:
    """Raise an error for what cannot be meant, before a model is loaded.

    Raises:
        GroundupError: Naming the option, or the file that is not there.
    """
    if output.on_unreadable not in _ON_UNREADABLE:
        raise GroundupError(
            "--on-unreadable",
            f"is {output.on_unreadable!r}; allowed: stop, skip",
            "Choose one of these",
        )
    if output.out is not None:
        check_out(output.out, force=output.force)
        if output.out.exists() and any(
            Path(each).exists() and output.out.samefile(each) for each in prompts
        ):
            raise GroundupError(str(output.out), "is what is read", "Choose another --out")
    elif output.force:
        raise GroundupError("--force", "has no effect without --out", "Give --out, or remove it")
    # Rows have a line each in a file, which a picture has no place for.
    if output.is_picture:
        for each in prompts:
            if _ROWS.fullmatch(each) or (each and as_path(each).is_dir()):
                problem = f"is for a picture, but {each} is a folder or holds rows"
                raise GroundupError(str(output.out), problem, "Write to .csv or .jsonl")
    files = [each for each in prompts if _ROWS.fullmatch(each) and as_path(each).is_file()]
    if files and len(prompts) > 1:
        problem = "is one of several; allowed: one file, or prompts"
        raise GroundupError(files[0], problem, "Give one file, or a folder")
    named = prompts[0] if len(prompts) == 1 else ""
    if output.settings and not as_path(named or "-").exists():
        name = next(iter(output.settings))
        raise GroundupError(f"data.{name}", "has no effect without a file", "Remove it")
    file = _ROWS.fullmatch(named) is not None and " " not in named
    if file and not as_path(named).exists():
        raise DataError(
            named,
            "there is no such file",
            "Correct the path; a text with this ending is read from standard input",
        )


def print_predictions(
    predictor: Predictor, prompts: Sequence[str], output: Output, options: dict[str, Any]
) -> None:
    """Print or write what is predicted of prompts, of the lines of standard input, or of a file or
    folder."""
    say = logging.getLogger("groundup").info
    path = _as_data(prompts, written=output.out is not None and not output.is_picture)
    if path is not None:
        rows = api.predict_file(
            predictor,
            path,
            limit=output.limit,
            on_unreadable=output.on_unreadable,
            settings=output.settings,
            progress=say,
            **options,
        )
    else:
        given = list(read_lines() if list(prompts) in ([], ["-"]) else prompts)
        chosen = given[: output.limit]
        if len(chosen) < len(given):
            say(f"predicting {len(chosen):,} of {len(given):,} prompts, the first ones")
        if output.out is None or output.is_picture:
            _print_each(predictor, chosen, output, options)
            return
        rows = predict_rows(
            predictor,
            unlabelled_prompts(chosen),
            on_unreadable=output.on_unreadable or "stop",
            progress=say,
            **options,
        )
    if output.out is None:
        for line in to_lines(rows):
            print(line)
        return
    write_rows(rows, output.out)
    print(f"Wrote {output.out}: {len(rows):,} rows")


def _print_each(
    predictor: Predictor, prompts: Sequence[str], output: Output, options: dict[str, Any]
) -> None:
    """Print what is predicted of each prompt, or write it as pictures."""
    files = []
    if output.out is not None:  # before anything is computed
        files = picture_files(output.out, len(prompts), force=output.force)
    found = predictor(list(prompts), **options)
    if files:
        made = found
        if isinstance(predictor.task, DrawsPredictions):
            # What is said is printed; the file shows where it is.
            made = [Picture(pixels) for pixels in predictor.task.draw(prompts, found)]
        write_pictures(made, files, predictor.task.registered_name)
    for predicted in found:
        if isinstance(predictor.task, MakesLists):
            print("\n".join(predictor.task.in_lines(predicted)))
            continue
        print(_as_line(predicted))
    for path in files:
        print(f"Wrote {path}")
    if not files and any(isinstance(each, Picture) for each in found):
        logging.getLogger("groundup").warning("a picture was made: --out NAME.png keeps it")


def _as_line(predicted: Any) -> Any:
    """Return what is printed of a prediction: of several values, as a transcript with its words'
    times, or of several outputs with their scores, JSON, which other programs read."""
    if isinstance(predicted, Picture):
        return next(to_lines([predicted.facts]))
    if isinstance(predicted, dict):
        return next(to_lines([predicted]))
    if isinstance(predicted, list) and any(isinstance(each, dict) for each in predicted):
        return f"[{', '.join(to_lines(predicted))}]"
    return predicted


def _as_data(prompts: Sequence[str], *, written: bool) -> str | None:
    """Return the file of rows, or the folder, that is the only prompt."""
    if len(prompts) != 1 or "\0" in prompts[0]:
        return None
    path = as_path(prompts[0])
    try:
        folder, file = path.is_dir(), path.is_file()
    except OSError:  # a text that is too long to be a path
        return None
    rows = bool(_ROWS.fullmatch(prompts[0]))
    return str(path) if folder or (file and (rows or written)) else None
