"""Files as users have them, and sources of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from groundup.core import registry
from groundup.core.settings import validate
from groundup.data.reading.source import Source
from groundup.reports.data_notes import data_notes

__all__ = ["make", "notes", "sizes", "texts", "write"]


def make(name: str, path: Path, **settings: Any) -> Source:
    source = validate(registry.lookup("data", name), {"path": str(path), **settings}, "recipe.data")
    assert isinstance(source, Source)
    return source


def sizes(source: Source, cache: Path) -> dict[str, int]:
    return {split: len(list(source.examples(split, cache))) for split in source.splits()}


def texts(source: Source, cache: Path) -> list[str]:
    return [example.text for example in source.examples("train", cache)]


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, indent=1)
    path.write_bytes(text.encode())
    return path


def notes(source: Source, cache: Path) -> str:
    return "\n".join(data_notes(source.card(cache)))
