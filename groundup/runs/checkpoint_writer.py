"""Writing checkpoints by all processes of a run, and while training goes on.

Each process owns a part of the tensors and writes them to files of its own; an index in Hugging
Face's layout says which tensor is where. The first process writes the rest, last of all the
manifest, once the others have told their digests.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from groundup.core.errors import CheckpointError, GroundupError
from groundup.core.storage import Manifest, Storage, sha256_of, write_files
from groundup.formats.huggingface_folder import SINGLE, index_of
from groundup.parallel.world import World
from groundup.runs.checkpoint import (
    EXPERIENCE,
    MOMENTS,
    STATE,
    Checkpoint,
    CheckpointFolder,
)

__all__ = ["CheckpointWriter"]

log = logging.getLogger("groundup")
# What a process that ends because another one is gone gives the thread that still writes.
_LAST_S = 2.0


class CheckpointWriter:
    """Writes the checkpoints of a run. All processes call the same methods in the same order, but
    for ``check`` and ``close``.

    Args:
        folder: Of the run's checkpoints.
        world: The processes of the run.
        asynchronous: Whether training may go on meanwhile.
        storage: The file system of this process; by default the folder's, of others than the first
            one that writes, too.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        world: World,
        *,
        asynchronous: bool = False,
        storage: Storage | None = None,
    ) -> None:
        self._folder = folder
        self._world = world
        self._asynchronous = asynchronous
        self._storage = storage
        self._number = 0
        self._in_flight = False
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    # ------------------------------------------------------------------------------ for the trainer
    def save(
        self, checkpoint: Checkpoint, keep: int, best: int | None = None, *, wait: bool = True
    ) -> None:
        """Write a checkpoint, read it back, and only then delete older ones.

        Args:
            checkpoint: What to write; where training goes on meanwhile it is copied first. Each
                process gives the tensors that it writes; of the others it may give the shapes,
                tensors without memory.
            keep: How many of the newest to keep.
            best: The step of one to keep as well.
            wait: Until it is written, whether or not training could go on.

        Raises:
            CheckpointError: If it, or the one before it, could not be written. Earlier checkpoints
                are untouched.
        """
        # One at a time: a slow disk must not fill the memory with copies.
        self.finish()
        go_on = self._asynchronous and not wait
        write = self._write_alone if self._world.size == 1 else self._begin_together(checkpoint)
        if write is None:
            return
        if go_on:
            checkpoint = _copy(checkpoint)

        def run() -> None:
            try:
                write(checkpoint, keep, best)
            except BaseException as error:  # told at the next step
                self._failure = error

        # Not of this run alone: a program may train several, one after the other.
        self._number = self._world.count()
        self._in_flight = True
        if go_on:
            # A daemon: what a process that ends by an error leaves half written is no checkpoint.
            self._thread = threading.Thread(target=run, daemon=True, name="checkpoint")
            self._thread.start()
        else:
            run()
            self.finish()

    def check(self) -> None:
        """Raise what went wrong with a checkpoint that is, or was, written meanwhile.

        Raises:
            CheckpointError: If it could not be written.
        """
        if self._failure is not None:
            failure = self._failure
            self._failure = None
            raise failure

    def finish(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            CheckpointError: On all processes, if it could not be.
        """
        if not self._in_flight:
            return
        self._in_flight = False
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        said = ""
        if not self._world.is_first:
            with self._world.naming("the checkpoint is written"):
                said = self._world.board.wait(self._done, 0)
        self.check()
        if said:
            raise CheckpointError(str(self._folder.folder), said.rstrip("."))

    def newest_intact(self) -> int | None:
        """Return the step of the newest checkpoint that verifies, or None; each process looks at a
        part of its files. What killed writers left behind is removed."""
        self._folder.clean()
        world = self._world
        # The first process's list: a disk that is slow elsewhere must not make two runs of one.
        steps = world.gather(self._folder.steps(), "checkpoints are listed")[0]
        for step in reversed(steps):
            damage = self._folder.damage(step, share=(world.rank, world.size))
            found = world.gather(damage, "a checkpoint is verified")
            damage = next(filter(None, found), "")
            if not damage:
                return int(step)
            if world.is_first:
                where = self._folder.path(step)
                log.warning("%s is damaged (%s): the one before it is used", where, damage)
        return None

    def close(self) -> None:
        """Let what is being written come to its end; what goes wrong with it is only said."""
        if self._thread is not None:
            # After an error that all have found, such as a loss that is no number, all write on.
            self._thread.join(_LAST_S if self._world.is_broken else None)
            self._thread = None
        if self._failure is not None:
            log.warning("%s", self._failure)
            self._failure = None

    # ------------------------------------------------------------------------------------- writing
    def _write_alone(self, checkpoint: Checkpoint, keep: int, best: int | None) -> None:
        self._folder.save(checkpoint, keep, best)

    def _begin_together(
        self, checkpoint: Checkpoint
    ) -> Callable[[Checkpoint, int, int | None], None] | None:
        """Return what writes this process's part; None if the checkpoint is there already."""
        step = checkpoint.step
        begun = self._world.first(lambda: self._begin(step), "the checkpoint's folder is made")
        name = self._world.gather(begun, "the checkpoint's folder is named")[0]
        if not name:
            return None
        temporary = self._folder.folder / name
        return lambda checkpoint, keep, best: self._write_part(checkpoint, temporary, keep, best)

    def _begin(self, step: int) -> str:
        temporary = self._folder.begin(step)
        return "" if temporary is None else temporary.name

    def _write_part(
        self, checkpoint: Checkpoint, temporary: Path, keep: int, best: int | None
    ) -> None:
        """Write this process's files, and tell the first one of them, which writes the rest."""
        world = self._world
        said: dict[str, Any] = {"error": "it ended"}
        own = self._told_by(world.rank)
        # In the first process's words all that went wrong is told, its own part included.
        done = world.board.alive(self._done) if world.is_first else contextlib.nullcontext()
        with done, world.board.alive(own):
            try:
                said = self._write_own(checkpoint, temporary)
            except GroundupError as error:
                said = {"error": str(error)}
            except OSError as error:
                said = {"error": error.strerror or str(error)}
            finally:
                world.board.leave(own, said)
            if world.is_first:
                self._finish_together(checkpoint, temporary, keep, best)

    def _finish_together(
        self, checkpoint: Checkpoint, temporary: Path, keep: int, best: int | None
    ) -> None:
        """Write what is left, and tell the others how it went."""
        said = "it ended"
        try:
            with self._folder.explain(checkpoint.step, temporary):
                self._write_rest(checkpoint, temporary)
            said = ""
        except CheckpointError as error:
            said = str(error)
            raise
        finally:
            self._world.board.leave(self._done, said)
        self._folder.remove_older(keep, best)

    @property
    def _done(self) -> str:
        """The key of the word with which a checkpoint is there."""
        return f"checkpoint/{self._number}/done"

    def _told_by(self, rank: int) -> str:
        """Return the key of what a process tells of its part."""
        return f"checkpoint/{self._number}/{rank}"

    def _write_own(self, checkpoint: Checkpoint, temporary: Path) -> dict[str, Any]:
        """Write the tensors that this process owns, and return what the others have to know."""
        world = self._world
        storage = self._storage or (self._folder.storage if world.is_first else Storage())
        said: dict[str, Any] = {"files": {}, "tensors": {}}
        for name, tensors in ((SINGLE, checkpoint.model), (MOMENTS, checkpoint.optimizer)):
            own = {key: tensor for key, tensor in tensors.items() if not tensor.is_meta}
            if not own:
                continue
            stem, suffix = name.split(".")
            file = f"{stem}-{world.rank + 1:05d}-of-{world.size:05d}.{suffix}"
            # Transformers opens no file that does not say what it is of.
            content = save(own, {"format": "pt"})
            written = write_files(storage, temporary, {file: content})
            if sha256_of(temporary / file) != written[file]["sha256"]:
                problem = f"{file} was written but reads back wrong"
                raise CheckpointError(str(temporary), problem, "Check the disk")
            said["files"] |= written
            sizes = {key: tensor.nbytes for key, tensor in own.items()}
            said["tensors"][name] = {"file": file, "sizes": sizes}
        return said

    def _write_rest(self, checkpoint: Checkpoint, temporary: Path) -> None:
        """Write what is not a process's own, once all have told what they wrote."""
        manifest: Manifest = {}
        places: dict[str, dict[str, str]] = {}
        sizes: dict[str, int] = {}
        for rank in range(self._world.size):
            try:
                said = self._world.board.wait(self._told_by(rank), rank)
            except RuntimeError as error:
                said = {"error": str(error)}
            if "error" in said:
                raise self._folder.explain_error(checkpoint.step, f"rank {rank}: {said['error']}")
            manifest |= said["files"]
            for name, written in said["tensors"].items():
                places.setdefault(name, {}).update(dict.fromkeys(written["sizes"], written["file"]))
                sizes[name] = sizes.get(name, 0) + sum(written["sizes"].values())
        contents = {STATE: checkpoint.state_bytes()}
        if checkpoint.experience:
            contents[EXPERIENCE] = save(checkpoint.experience)
        for name, where in places.items():
            index = {
                "metadata": {"total_size": sizes[name]},
                "weight_map": dict(sorted(where.items())),
            }
            contents[index_of(name)] = json.dumps(index, indent=1).encode()
        manifest |= write_files(self._folder.storage, temporary, contents)
        self._folder.finish(temporary, checkpoint.step, manifest)


def _copy(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint in the CPU's memory, whose tensors training does not change."""

    def copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: tensor if tensor.is_meta else tensor.to("cpu", copy=True)
            for name, tensor in tensors.items()
        }

    return replace(
        checkpoint,
        model=copy(checkpoint.model),
        optimizer=copy(checkpoint.optimizer),
        experience=copy(checkpoint.experience),
    )
