"""Checkpoints: write-once folders of safetensors and JSON. One exists if and only if its manifest
verifies."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.core.storage import Storage, sha256_of

__all__ = ["STATE", "TO_PREDICT", "Checkpoint", "CheckpointFolder"]

log = logging.getLogger("groundup")
STATE = "state.json"
TO_PREDICT = ("model.safetensors", STATE)
"""What is read of a checkpoint to predict; a resume reads the optimizer's file as well."""
_OPTIMIZER = "optimizer.safetensors"
_EXPERIENCE = "experience.safetensors"
# Always eight digits, so that a listing by name is in the order of the steps.
_NAME = re.compile(r"^step-(\d{8})$")


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on exactly as if it had never stopped.

    Attributes:
        experience: Examples that weights of before made, and later steps still read.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    experience: dict[str, Tensor] = field(default_factory=dict)


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: ``runs/NAME/checkpoints``; made when the first checkpoint is written.
        storage: The file system, or one that fails on purpose.
    """

    def __init__(self, folder: Path, storage: Storage) -> None:
        self.folder = folder
        self._storage = storage

    def steps(self) -> list[int]:
        """Return the steps of all checkpoint folders, intact or not, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(
            int(match[1]) for path in self.folder.iterdir() if (match := _NAME.match(path.name))
        )

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.folder / f"step-{step:08d}"

    def save(self, checkpoint: Checkpoint, keep: int, best: int | None = None) -> None:
        """Write a checkpoint, read it back, and only then delete older ones.

        Args:
            checkpoint: What to write.
            keep: How many of the newest to keep.
            best: The step of one to keep as well.

        Raises:
            CheckpointError: If it could not be written, as on a full disk. Earlier checkpoints are
                untouched.
        """
        target = self.path(checkpoint.step)
        # Write once: an intact checkpoint of this step is this run's, and so holds the same.
        if target.exists() and not self.damage(checkpoint.step):
            return
        # Damaged, or left over: rename refuses a folder that is there.
        self._storage.remove(target)
        # Under a name that no reader looks for: a checkpoint appears whole, by one rename.
        temporary = self.folder / f".{target.name}.{os.getpid()}"
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            self._write(temporary, checkpoint)
            self._storage.rename(temporary, target)
        except OSError as error:
            kept = [step for step in self.steps() if step != checkpoint.step]
            before = "no earlier checkpoint exists"
            if kept:
                before = f"the checkpoint of step {kept[-1]} is untouched"
            raise CheckpointError(
                str(target),
                f"could not be written: {error.strerror or error}; {before}",
                "Free some space and start the same command again",
            ) from error
        finally:
            self._storage.remove(temporary)
        if damage := self.damage(checkpoint.step):
            raise CheckpointError(
                str(target), f"was written but reads back wrong: {damage}", "Check the disk"
            )
        # Last, once the new one was read back: a full disk never costs the only good one.
        for step in self.steps()[:-keep]:
            if step != best:
                self._storage.remove(self.path(step))

    def _write(self, folder: Path, checkpoint: Checkpoint) -> None:
        state = json.dumps({"step": checkpoint.step, **checkpoint.state}, indent=1).encode()
        contents = {"model.safetensors": save(checkpoint.model), STATE: state}
        if checkpoint.optimizer:
            contents[_OPTIMIZER] = save(checkpoint.optimizer)
        if checkpoint.experience:
            contents[_EXPERIENCE] = save(checkpoint.experience)
        manifest = {}
        for name, content in contents.items():
            self._storage.write_bytes(folder / name, content)
            # Of what was to be written, not of what can be read: a bad disk is found out.
            sha256 = hashlib.sha256(content).hexdigest()
            manifest[name] = {"sha256": sha256, "size_bytes": len(content)}
        # Last: without a manifest nothing verifies, whatever was written before it.
        self._storage.write_bytes(folder / "MANIFEST.json", json.dumps(manifest, indent=1).encode())

    def damage(self, step: int, only: Collection[str] = ()) -> str:
        """Return what is wrong with a checkpoint, or the empty string if its manifest verifies.

        Args:
            step: Of the checkpoint.
            only: The files that are going to be read; by default all.
        """
        folder = self.path(step)
        try:
            manifest = json.loads((folder / "MANIFEST.json").read_bytes())
            for name, expected in manifest.items():
                if only and name not in only:
                    continue
                path = folder / name
                if not path.is_file():
                    return f"{name} is missing"
                # The size first: it is known at once, where a digest reads gigabytes.
                if path.stat().st_size != expected["size_bytes"]:
                    return (
                        f"{name} has {path.stat().st_size} bytes instead of"
                        f" {expected['size_bytes']}"
                    )
                if sha256_of(path) != expected["sha256"]:
                    return f"{name} has another SHA-256 than its manifest says"
        # Whatever a damaged manifest holds: no JSON, no mapping, a file without a size.
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"MANIFEST.json cannot be read ({type(error).__name__})"
        return "" if "model.safetensors" in manifest else "MANIFEST.json names no model.safetensors"

    def load(self, step: int, *, with_optimizer: bool = True) -> Checkpoint:
        """Return one checkpoint, verified.

        Raises:
            CheckpointError: If it is missing or damaged.
        """
        if damage := self.damage(step, () if with_optimizer else TO_PREDICT):
            raise CheckpointError(
                str(self.path(step)), f"is damaged: {damage}", "Use another checkpoint"
            )
        folder = self.path(step)
        try:
            # A checkpoint without moments, or without experience, has no such file; see ``_write``.
            optimizer, experience = (
                load_file(folder / name) if with_optimizer and (folder / name).exists() else {}
                for name in (_OPTIMIZER, _EXPERIENCE)
            )
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            model = load_file(folder / "model.safetensors")
            return Checkpoint(step, model, optimizer, state, experience)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                str(folder), f"cannot be read: {error}", "Use another checkpoint"
            ) from error

    def newest_intact(self, only: Collection[str] = ()) -> int | None:
        """Return the step of the newest checkpoint that verifies, or None; damaged ones are named
        in the log.

        Args:
            only: The files that are going to be read; by default all.
        """
        for step in reversed(self.steps()):
            damage = self.damage(step, only)
            if not damage:
                return step
            log.warning("%s is damaged (%s): the one before it is used", self.path(step), damage)
        return None

    def state(self, step: int) -> dict[str, Any]:
        """Return the JSON state of a checkpoint without reading its tensors."""
        state: dict[str, Any] = json.loads((self.path(step) / STATE).read_text(encoding="utf-8"))
        return state

    def clean(self) -> None:
        """Remove what writers that were killed left behind."""
        # The folder is made with the first checkpoint, so a run may have none yet.
        with contextlib.suppress(FileNotFoundError):
            for path in self.folder.glob(".step-*"):
                self._storage.remove(path)
