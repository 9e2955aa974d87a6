"""Which modules of the standard library are imported together: each file of it is a user, who
chooses the modules that it imports, in order. Nothing is downloaded, and nothing is imported."""

from __future__ import annotations

import ast
import json
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.contracts.recommendation import Catalogue, Choice, UserHistory
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.storage import Storage
from groundup.core.values import Example, Split
from groundup.data.sources.python_source import LICENCE, corpus_key, python_version
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["PythonImports"]

# What is installed besides the library is other people's.
_SKIPPED = frozenset({"__pycache__", "site-packages", "dist-packages", "lib2to3", "_bundled"})


@data("python_imports")
class PythonImports(DataSource):
    """Files of the standard library, tests included, with the modules that each imports, in the
    order in which it names them; the last two are held out."""

    min_imports: int = setting(4, "Files with fewer imports are left out", ge=3)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are."""
        return ("train", "validation", "test")

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return each file with what it imports before, and what it imports next."""
        imports = {
            name: found
            for name, found in _read_imports(cache).items()
            if len(found) >= self.min_imports
        }
        items: dict[str, dict[str, Any]] = {
            item: {} for found in imports.values() for item in found
        }
        about = Catalogue(items, {}, {}, imports)
        return [self._example(name, found, split, about) for name, found in imports.items()]

    def _example(
        self, name: str, found: tuple[str, ...], split: Split, about: Catalogue
    ) -> Example:
        # As of anyone's history: the last is the test, the one before it chooses the weights.
        end = len(found) - {"train": 2, "validation": 1, "test": 0}[split]
        begin = 0 if split == "train" else end - 1
        history = UserHistory(name, found[:begin], (), {}, about)
        return Example(f"{name} {split}", history, Choice(found[begin:end]), f"{name}, {split}")

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many files and modules there are, and the licence."""
        imports = _read_imports(cache)
        found = [own for own in imports.values() if len(own) >= self.min_imports]
        return {
            "source": f"the standard library of {python_version()}",
            "licence": LICENCE,
            "files": {"found": len(imports), "read": len(found)},
            "modules": len({module for own in found for module in own}),
            "imports": sum(map(len, found)),
        }


@lru_cache(maxsize=2)
def _read_imports(cache: Path) -> dict[str, tuple[str, ...]]:
    """Return the modules that each file names, each once, in the order of its lines; from the cache
    folder where they were found before."""
    # Parsing the whole library takes as long as learning from it.
    path = cache / f"python-imports-{corpus_key()}.json"
    if path.is_file():
        saved = json.loads(path.read_text(encoding="utf-8"))
        return {name: tuple(modules) for name, modules in saved.items()}
    found = dict(_parse_library(Path(sysconfig.get_path("stdlib"))))
    cache.mkdir(parents=True, exist_ok=True)
    Storage().write_text(path, json.dumps(found, ensure_ascii=False) + "\n")
    return found


def _parse_library(library: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if _SKIPPED & set(relative.parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            # Some files are wrong on purpose, for the library's own tests.
            continue
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        nodes.sort(key=lambda node: (node.lineno, node.col_offset))
        names = (name for node in nodes for name in _modules(node))
        yield relative.as_posix(), tuple(dict.fromkeys(names))


def _modules(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif node.module and not node.level:
        yield node.module
