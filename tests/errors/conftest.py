"""Pretrained folders that the tests of errors spoil, each test a copy of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pretrained_folders import write_model, write_tokenizer


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model in one file, and one in shards, each with a tokenizer."""
    root = tmp_path_factory.mktemp("pretrained")
    for name, size in (("whole", "5GB"), ("sharded", "40KB")):
        write_model(root / name, "llama2", shard=size, vocab_size=320)
        write_tokenizer(root / name)
    return {name: root / name for name in ("whole", "sharded")}


@pytest.fixture
def folder(written: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(written["whole"], tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def sharded(written: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(written["sharded"], tmp_path / "shards")
    return tmp_path / "shards"
