"""A user's file may be imported twice: by the recipe that names it, and by a test."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from own_parts import forget_own_parts

from groundup.core import registry
from groundup.core.errors import RecipeError

CODE = """
from groundup.core.registry import task

@task("twice")
class Twice:
    pass
"""


def test_the_same_file_under_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_twice.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with forget_own_parts():
        registry.load_file(tmp_path / "own_twice.py")
        imported = importlib.import_module("own_twice")
        assert registry.lookup("task", "twice") is imported.Twice


def test_two_files_with_the_same_name_for_a_part(tmp_path: Path) -> None:
    for name in ("one.py", "other.py"):
        (tmp_path / name).write_text(CODE, encoding="utf-8")
    with forget_own_parts():
        registry.load_file(tmp_path / "one.py")
        with pytest.raises(RecipeError, match="task 'twice': is registered twice"):
            registry.load_file(tmp_path / "other.py")
