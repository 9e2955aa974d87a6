"""Checkpoints: write-once folders of safetensors and JSON. One exists if and only if its manifest
verifies."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.core.storage import Manifest, Storage, sha256_of, write_files
from groundup.formats.huggingface_folder import SINGLE, kind_of, read_tensors

__all__ = ["EXPERIENCE", "MOMENTS", "STATE", "TO_PREDICT", "Checkpoint", "CheckpointFolder"]

log = logging.getLogger("groundup")
MOMENTS = "optimizer.safetensors"
EXPERIENCE = "experience.safetensors"
STATE = "state.json"
TO_PREDICT = (SINGLE, STATE)
"""What is read of a checkpoint to predict; a resume reads the optimizer's file as well."""
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

    def state_bytes(self) -> bytes:
        """Return what state.json holds."""
        return json.dumps({"step": self.step, **self.state}, indent=1).encode()


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: ``runs/NAME/checkpoints``; made when the first checkpoint is written.
        storage: The file system, or one that fails on purpose.
    """

    def __init__(self, folder: Path, storage: Storage) -> None:
        self.folder = folder
        self.storage = storage

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
        temporary = self.begin(checkpoint.step)
        if temporary is None:
            return
        with self.explain(checkpoint.step, temporary):
            manifest = self._write(temporary, checkpoint)
            self.finish(temporary, checkpoint.step, manifest)
        if damage := self.damage(checkpoint.step):
            raise CheckpointError(
                str(self.path(checkpoint.step)),
                f"was written but reads back wrong: {damage}",
                "Check the disk",
            )
        self.remove_older(keep, best)

    def begin(self, step: int) -> Path | None:
        """Return a new folder to write the checkpoint of a step to; None if it is there already."""
        target = self.path(step)
        # Write once: an intact checkpoint of this step is this run's, and so holds the same.
        if target.exists() and not self.damage(step):
            return None
        # Damaged, or left over: rename refuses a folder that is there.
        self.storage.remove(target)
        # Under a name that no reader looks for: a checkpoint appears whole, by one rename.
        temporary = self.folder / f".{target.name}.{os.getpid()}"
        with self.explain(step, temporary):
            temporary.mkdir(parents=True, exist_ok=True)
        return temporary

    @contextlib.contextmanager
    def explain(self, step: int, temporary: Path) -> Iterator[None]:
        """Within, say what an error of the system means, and leave nothing of the checkpoint."""
        try:
            yield
        except BaseException as error:
            self.storage.remove(temporary)
            if isinstance(error, OSError):
                raise self.explain_error(step, error.strerror or str(error)) from error
            raise

    def explain_error(self, step: int, problem: str) -> CheckpointError:
        """Return the error of a checkpoint that could not be written."""
        kept = [each for each in self.steps() if each != step]
        before = "no earlier checkpoint exists"
        if kept:
            before = f"the checkpoint of step {kept[-1]} is untouched"
        return CheckpointError(
            str(self.path(step)),
            f"could not be written: {problem}; {before}",
            "Free some space and start the same command again",
        )

    def finish(self, temporary: Path, step: int, manifest: Manifest) -> None:
        """Write the manifest of a folder in which all else is, and give it its name."""
        # Last: without a manifest nothing verifies, whatever was written before it.
        self.storage.write_bytes(
            temporary / "MANIFEST.json", json.dumps(manifest, indent=1).encode()
        )
        self.storage.rename(temporary, self.path(step))

    def remove_older(self, keep: int, best: int | None) -> None:
        """Delete all checkpoints but the newest and the best."""
        # Last, once the new one was read back: a full disk never costs the only good one.
        for step in self.steps()[:-keep]:
            if step != best:
                self.storage.remove(self.path(step))

    def _write(self, folder: Path, checkpoint: Checkpoint) -> Manifest:
        contents = {SINGLE: save(checkpoint.model), STATE: checkpoint.state_bytes()}
        if checkpoint.optimizer:
            contents[MOMENTS] = save(checkpoint.optimizer)
        if checkpoint.experience:
            contents[EXPERIENCE] = save(checkpoint.experience)
        return write_files(self.storage, folder, contents)

    def damage(self, step: int, only: Collection[str] = (), share: tuple[int, int] = (0, 1)) -> str:
        """Return what is wrong with a checkpoint, or the empty string if its manifest verifies.

        Args:
            step: Of the checkpoint.
            only: The files that are going to be read, named as if there were one of each kind; by
                default all.
            share: Which part of the files, and of how many, is looked at here.
        """
        folder = self.path(step)
        part, parts = share
        try:
            manifest = json.loads((folder / "MANIFEST.json").read_bytes())
            for number, (name, expected) in enumerate(manifest.items()):
                if (only and kind_of(name) not in only) or number % parts != part:
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
        known = SINGLE in map(kind_of, manifest)
        return "" if known else f"MANIFEST.json names no {SINGLE}"

    def load(self, step: int, *, with_optimizer: bool = True, verified: bool = False) -> Checkpoint:
        """Return one checkpoint, verified unless it was just before; its tensors are mapped.

        Raises:
            CheckpointError: If it is missing or damaged.
        """
        only = () if with_optimizer else TO_PREDICT
        if damage := "" if verified else self.damage(step, only):
            raise CheckpointError(
                str(self.path(step)), f"is damaged: {damage}", "Use another checkpoint"
            )
        folder = self.path(step)
        try:
            # A checkpoint without moments, or without experience, has no such file; see ``_write``.
            optimizer = read_tensors(folder, MOMENTS) if with_optimizer else {}
            experience = read_tensors(folder, EXPERIENCE) if with_optimizer else {}
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            model = read_tensors(folder, SINGLE)
            return Checkpoint(step, model, optimizer, state, experience)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
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
                self.storage.remove(path)
