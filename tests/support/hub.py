"""Small Hugging Face data sets in folders, for tests: scikit-learn's digits as PNG, and whatever
else is given."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from later import Library
from PIL import Image

from groundup.data.sources.arrays import Arrays

datasets: Any = Library("datasets")
pyarrow: Any = Library("pyarrow")

DIGITS = [str(number) for number in range(10)]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library keep its copies in the test's folder, and say nothing."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def write_dataset(root: Path, splits: dict[str, dict[str, Any]], features: dict[str, Any]) -> str:
    """Write splits of columns as the hub keeps them, ``root/data/SPLIT.parquet``; return the
    folder."""
    import pyarrow.parquet

    schema = datasets.Features(features).arrow_schema
    (root / "data").mkdir(parents=True, exist_ok=True)
    for split, columns in splits.items():
        table = pyarrow.Table.from_pydict(columns, schema=schema)
        pyarrow.parquet.write_table(table, root / "data" / f"{split}-00000-of-00001.parquet")
    return str(root)


def png(values: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(values).round().astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def digit_columns(first: int, last: int) -> dict[str, list[Any]]:
    """Return the pictures and labels of some of scikit-learn's digits, 8 x 8 pixels of grey."""
    found = Arrays().examples("train", Path())[first:last]
    pictures = [{"bytes": png(example.inputs / 16 * 255), "path": None} for example in found]
    return {"image": pictures, "label": [int(example.target) for example in found]}


def digits_dataset(root: Path, sizes: dict[str, int], **changed: Any) -> str:
    """Write splits of digits, none of them twice; ``changed`` replaces features."""
    splits, first = {}, 0
    for split, size in sizes.items():
        splits[split] = digit_columns(first, first + size)
        first += size
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=DIGITS)}
    return write_dataset(root, splits, {**features, **changed})
