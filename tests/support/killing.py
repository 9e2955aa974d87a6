"""Training in processes of their own that are killed on purpose. Child processes import this
module."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

from groundup.core.storage import Storage

__all__ = ["context", "kill_during_save", "kill_while_training", "train_in_child", "weights_sha256"]

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    ["groundup.training.trainer", "groundup.tasks.language_modeling", "groundup.models.gpt"]
)


class _DeadlyStorage(Storage):
    """Writes half of the n-th file of a checkpoint, then kills its own process."""

    def __init__(self, fatal_write: int) -> None:
        super().__init__()
        self.left = fatal_write

    def write_bytes(self, path: Path, content: bytes) -> None:
        if "checkpoints" in path.parts:
            if self.left == 0:
                path.write_bytes(content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
        super().write_bytes(path, content)


def _child(
    recipe: dict[str, Any], runs: str, cache: str, fatal_write: int | None, pause_s: float
) -> None:
    os.environ["GROUNDUP_CACHE"] = cache
    from groundup import api
    from groundup.recipe.recipe import load_recipe
    from groundup.training import build

    run = build.freeze(api.start(load_recipe(recipe), runs))
    if fatal_write is not None:
        run.storage = _DeadlyStorage(fatal_write)
        run.checkpoints.storage = run.storage
    trainer = build.build_trainer(run)
    trainer.resume()
    due = trainer._due

    def slow_due(every: int, after: int = 0) -> bool:
        time.sleep(pause_s)
        return due(every, after)

    trainer._due = slow_due  # type: ignore[method-assign]
    trainer.fit()
    trainer.close()


def train_in_child(
    recipe: dict[str, Any],
    runs: Path,
    cache: Path,
    *,
    fatal_write: int | None = None,
    pause_s: float = 0.0,
) -> Any:
    """Start training in a child process and return the process."""
    process = context.Process(
        target=_child, args=(recipe, str(runs), str(cache), fatal_write, pause_s)
    )
    process.start()
    return process


def kill_during_save(recipe: dict[str, Any], runs: Path, cache: Path, write: int) -> None:
    """Train until the process dies half-way through its ``write``-th checkpoint file."""
    process = train_in_child(recipe, runs, cache, fatal_write=write)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, "the save to die in never came"


def kill_while_training(
    recipe: dict[str, Any], runs: Path, cache: Path, after_step: int, delay_s: float
) -> None:
    """Train, and kill the process from outside a moment after it has logged ``after_step``."""
    process = train_in_child(recipe, runs, cache, pause_s=0.01)
    deadline = time.monotonic() + 120
    while (
        _last_step(runs / recipe["name"]) < after_step
        and time.monotonic() < deadline
        and process.is_alive()
    ):
        time.sleep(0.002)
    time.sleep(delay_s)
    assert process.is_alive(), "the run ended before it was killed"
    process.kill()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def _last_step(folder: Path) -> int:
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return max((json.loads(line)["step"] for line in lines if '"train"' in line), default=-1)
    except (OSError, ValueError):
        return -1


def weights_sha256(folder: Path, step: int) -> str:
    """Return the SHA-256 of a checkpoint's weights, as its manifest has it."""
    manifest = folder / "checkpoints" / f"step-{step:08d}" / "MANIFEST.json"
    return str(json.loads(manifest.read_text(encoding="utf-8"))["model.safetensors"]["sha256"])
