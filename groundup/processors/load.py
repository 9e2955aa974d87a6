"""Opens the processor that was saved with a run or a model."""

from __future__ import annotations

from pathlib import Path

from groundup.core.errors import DataError
from groundup.core.interfaces import TextProcessor
from groundup.core.registry import lookup
from groundup.processors.files import read_json

__all__ = ["load_processor"]


def load_processor(folder: Path) -> TextProcessor:
    """Return the text processor saved in ``folder``; a folder with just a tokenizer.json opens too.

    Raises:
        DataError: If the folder is missing or holds no processor.
        RecipeError: If nothing is registered under the name in processor.json.
    """
    path = folder / "processor.json"
    if not path.is_file() and (folder / "tokenizer.json").is_file():
        found = lookup("processor", "tokenizer_json")(path=str(folder)).fit(lambda: iter(()))
    else:
        name = read_json(path).get("name")
        if not isinstance(name, str):
            raise DataError(str(path), "has no text 'name'", "Save the processor again")
        found = lookup("processor", name, f"{path}: name").load(folder)
    if not isinstance(found, TextProcessor):
        raise DataError(str(path), "is not a processor of text", "Give the folder of a tokenizer")
    return found
