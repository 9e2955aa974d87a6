"""The processor of a run, saved in its folder and read from there from then on; and the cache of
what is prepared with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import platformdirs

from groundup.contracts.processors import Processor, ProcessorConfig
from groundup.core import registry
from groundup.core.errors import RunError

__all__ = ["add_files", "cache_folder", "load_processor"]


def cache_folder() -> Path:
    """Return where prepared data is kept between runs: $GROUNDUP_CACHE, or the user's cache
    folder."""
    # ``or``, because a variable that is set to nothing would put the cache where one happens to be.
    return Path(os.environ.get("GROUNDUP_CACHE") or platformdirs.user_cache_dir("groundup"))


def add_files(digest: Any, folder: Path) -> None:
    """Make a digest depend on the names and contents of all files below a folder."""
    # By name, as the file system lists them in any order.
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.name.encode() + path.read_bytes())


def load_processor(folder: Path) -> Processor:
    """Return the processor saved in a folder.

    Raises:
        RunError: If the folder holds none, or its processor.json is damaged.
    """
    path = folder / "processor.json"
    if not path.is_file():
        raise RunError(str(folder), "holds no processor.json", "Train the run first")
    try:
        name = str(json.loads(path.read_text(encoding="utf-8"))["name"])
    except (ValueError, KeyError, TypeError):
        raise RunError(
            str(path), "is damaged: it names no processor", "Restore it, or train the run again"
        ) from None
    config: type[ProcessorConfig] = registry.lookup("processor", name, f"{path}: name")
    return config.load(folder)
