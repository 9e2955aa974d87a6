"""The n-grams of transcripts, in a file next to the processor that reads them."""

from __future__ import annotations

from pathlib import Path

from groundup.core.errors import DataError
from groundup.generation.ngrams import NGramModel
from groundup.processors.saved_files import read_json, write_json

__all__ = ["load_ngrams", "save_ngrams"]

_FILE = "ngrams.json"


def save_ngrams(model: NGramModel | None, folder: Path) -> None:
    """Write ngrams.json, where there are any."""
    if model is not None:
        write_json(folder / _FILE, model.to_json())


def load_ngrams(folder: Path) -> NGramModel | None:
    """Return the n-grams that were saved to ``folder``; None where none were.

    Raises:
        DataError: If the file is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    saved = read_json(path)
    try:
        return NGramModel.from_json(saved)
    except (KeyError, TypeError, ValueError) as error:
        # Counts that are half there would write other texts without a word.
        raise DataError(
            str(path), f"is damaged: {type(error).__name__}: {error}", "Copy the run again"
        ) from None
