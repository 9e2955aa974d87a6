"""Files of the standard library as users, and the modules that they import as items."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from groundup.data.sources.python_imports import PythonImports, _read_imports

SOURCE = "import os, sys\nfrom json import dumps\nfrom . import near\nimport sys\nimport re\n"


def test_the_library_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "lib"
    library.mkdir()
    (library / "a.py").write_text(SOURCE, encoding="utf-8")
    (library / "few.py").write_text("import os\n", encoding="utf-8")
    (library / "wrong.py").write_text("import (\n", encoding="utf-8")
    (library / "site-packages").mkdir()
    (library / "site-packages" / "b.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(library))
    cache = tmp_path / "cache"
    first = PythonImports().examples("test", cache)
    assert [(*each.inputs.items, *each.target.items) for each in first] == [
        ("os", "sys", "json", "re")
    ]
    assert PythonImports().card(cache)["files"] == {"found": 2, "read": 1}
    # Another process finds what this one wrote, whatever has become of the library.
    _read_imports.cache_clear()
    for path in library.glob("*.py"):
        path.unlink()
    again = PythonImports().examples("test", cache)
    assert [each.name for each in again] == [each.name for each in first]
    assert again[0].inputs.items == first[0].inputs.items
    _read_imports.cache_clear()
