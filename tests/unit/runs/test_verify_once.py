"""Each file of a checkpoint is read to verify it once in a process, and only if it is needed."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny_run

import groundup
from groundup.core import storage
from groundup.runs.checkpoint import Checkpoint, CheckpointFolder
from groundup.runs.run import Run


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each file of a checkpoint is hashed, as if all had been written long ago."""
    found: Counter[str] = Counter()
    digest = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        path = Path(file.name)
        if path.parent.parent.name == "checkpoints":
            found[f"{path.parent.name}/{path.name}"] += 1
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    monkeypatch.setattr(storage, "_SETTLED_NS", -(10**18))
    monkeypatch.setattr(storage, "_KNOWN_SHA256", {})
    return found


@pytest.mark.slow
def test_predict_and_evaluate_read_what_they_need_once(
    hashed: Counter[str], tmp_path: Path
) -> None:
    recipe = tiny_run("mlp", tmp_path)
    recipe["training"] = {"batch_size": 16, "steps": 4}
    run = groundup.train(recipe, runs=tmp_path)
    needed = {"step-00000004/model.safetensors": 1, "step-00000004/state.json": 1}
    hashed.clear()
    storage._KNOWN_SHA256.clear()
    groundup.load(run.folder)
    assert hashed == needed
    groundup.evaluate(run.folder)
    assert hashed == needed
    storage._KNOWN_SHA256.clear()
    assert groundup.resume(run.folder).finished
    assert hashed == dict.fromkeys(needed, 2)


def test_a_damaged_optimizer_does_not_keep_from_predicting(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints", storage.Storage())
    for step in (1, 2):
        folder.save(Checkpoint(step, {}, {}, {"best_step": 1}), keep=5)
        (folder.path(step) / "model.safetensors").stat()
    manifest = folder.path(2) / "MANIFEST.json"
    manifest.write_text(
        manifest.read_text().replace("{", '{"optimizer.safetensors": {"size_bytes": 1},', 1)
    )
    run = Run(tmp_path, None)  # type: ignore[arg-type]  # only its checkpoints are asked
    assert folder.newest_intact() == 1
    assert run.pick("last") == 2
    assert run.pick("best") == 1
    (folder.path(1) / "model.safetensors").write_bytes(b"")
    assert run.pick("best") == 2


def test_a_changed_file_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(storage, "_SETTLED_NS", -(10**18))
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = storage.sha256_of(path)
    assert storage.sha256_of(path) == first == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"three")
    assert storage.sha256_of(path) == hashlib.sha256(b"three").hexdigest()


def test_a_file_written_just_now_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"two", b"six"):  # within one tick of the file system's clock
        path.write_bytes(content)
        assert storage.sha256_of(path) == hashlib.sha256(content).hexdigest()
