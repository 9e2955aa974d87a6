"""What is said when the interpreter has no library source."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.core.errors import DataError
from groundup.data.sources.python_source import extract_documents


def test_a_library_without_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds no Python source.*Use an interpreter with its library\."
    ):
        extract_documents(tmp_path)
