"""Checkpoints that several processes write together, and such as are written meanwhile."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import FullDisk
from safetensors.torch import load_file
from torch import nn
from torch.distributed import HashStore

from groundup.core.errors import CheckpointError
from groundup.core.storage import Storage
from groundup.formats.huggingface_folder import weight_files
from groundup.parallel.board import Board
from groundup.parallel.ownership import share_out
from groundup.parallel.world import ALONE
from groundup.runs import checkpoint_writer
from groundup.runs.checkpoint import Checkpoint, CheckpointFolder
from groundup.runs.checkpoint_writer import CheckpointWriter


class Meeting:
    """What the threads that stand for processes share."""

    def __init__(self, size: int) -> None:
        self.store = HashStore()
        self.barrier = threading.Barrier(size, timeout=20)
        self.values: list[Any] = [None] * size


class Threaded:
    """A process of a run, here a thread."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank = rank
        self.size = len(meeting.values)
        self.is_first = rank == 0
        self.board = Board(meeting.store, 20.0, lambda rank: False)
        self._meeting = meeting
        self.is_broken = False
        self._count = 0

    def gather(self, value: Any, what: str) -> list[Any]:
        self._meeting.values[self.rank] = value
        self._meeting.barrier.wait()
        found = list(self._meeting.values)
        self._meeting.barrier.wait()
        return found

    def count(self) -> int:
        self._count += 1
        return self._count

    def first(self, action: Callable[[], Any], what: str) -> Any:
        done = action() if self.is_first else None
        self._meeting.barrier.wait()
        return done

    def naming(self, what: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class SlowDisk(Storage):
    """Writes nothing until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write_bytes(self, path: Path, content: bytes) -> None:
        assert self.go.wait(20)
        super().write_bytes(path, content)


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 2))


# Once: threads that draw at the same time would each get other numbers.
WEIGHTS = model().state_dict()


def checkpoint(step: int) -> Checkpoint:
    weights = {name: tensor + step for name, tensor in WEIGHTS.items()}
    moments = {f"{name}/exp_avg": tensor * 2 for name, tensor in weights.items()}
    experience = {"games": torch.arange(6)}
    return Checkpoint(step, weights, moments, {"finished": False}, experience)


def part_of(whole: Checkpoint, rank: int, size: int) -> Checkpoint:
    """Return what one process of several writes, and the shapes of the others' tensors."""

    def own(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        owners = share_out([{name: each.nbytes for name, each in tensors.items()}] * size)
        return {
            name: each if owners[name] == rank else each.to("meta")
            for name, each in tensors.items()
        }

    return replace(whole, model=own(whole.model), optimizer=own(whole.optimizer))


def together(
    folder: Path, size: int, steps: tuple[int, ...], full: dict[int, int] | None = None
) -> list[str]:
    """Let so many processes write checkpoints, and return what went wrong on each.

    Args:
        folder: Of the checkpoints.
        size: How many processes.
        steps: Of which steps.
        full: For how many files the disk of a process has room.
    """
    meeting = Meeting(size)

    def write(rank: int) -> str:
        storage = Storage(writes=rank == 0)
        own = None
        if full and rank in full:
            own = FullDisk(full[rank])
            storage = own if rank == 0 else storage
        world: Any = Threaded(rank, meeting)
        writer = CheckpointWriter(CheckpointFolder(folder, storage), world, storage=own)
        try:
            for step in steps:
                writer.save(part_of(checkpoint(step), rank, size), keep=2)
        except CheckpointError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(write, range(size)))


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    for found, expected in (
        (one.model, other.model),
        (one.optimizer, other.optimizer),
        (one.experience, other.experience),
    ):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_bytes_are_shared_out_evenly_and_always_alike() -> None:
    sizes = {f"layer.{number}": 10 + number % 7 for number in range(100)} | {"embedding": 300}
    owners = share_out([sizes] * 4)
    assert share_out([dict(reversed(sizes.items()))] * 4) == owners
    loads = [sum(sizes[name] for name in sizes if owners[name] == rank) for rank in range(4)]
    assert sum(loads) == sum(sizes.values())
    assert max(loads) - min(loads) <= 16


def test_who_has_nothing_of_a_tensor_does_not_write_it() -> None:
    """As where processes have layers of their own, and of a tied weight both ends have a copy."""
    stages = [{"tied": 9, "first": 5}, {"middle": 7}, {"tied": 8, "last": 5}]
    owners = share_out(stages)
    assert owners == {"tied": 0, "first": 0, "middle": 1, "last": 2}


@pytest.mark.parametrize("size", [2, 3, 30])
def test_what_several_wrote_opens_as_what_one_wrote(tmp_path: Path, size: int) -> None:
    CheckpointFolder(tmp_path / "alone", Storage()).save(checkpoint(4), keep=2)
    assert together(tmp_path / "shared", size, (4,)) == [""] * size
    alone, shared = (CheckpointFolder(tmp_path / name, Storage()) for name in ("alone", "shared"))
    assert shared.damage(4) == ""
    assert_same(shared.load(4), alone.load(4))
    assert shared.load(4).state == alone.load(4).state
    assert shared.load(4, with_optimizer=False).optimizer == {}
    # Each tensor in one file, none whole on one process where there are several.
    files = sorted(shared.path(4).glob("model-*.safetensors"))
    names = [name for file in files for name in load_file(file)]
    assert sorted(names) == sorted(alone.load(4).model)
    assert len(files) == min(size, len(names))
    assert not list(tmp_path.rglob(".step-*"))


def test_it_is_a_hugging_face_folder(tmp_path: Path) -> None:
    library = pytest.importorskip("huggingface_hub")
    together(tmp_path, 3, (4,))
    folder = CheckpointFolder(tmp_path, Storage()).path(4)
    assert sum(len(tensors or ()) for tensors in weight_files(folder).values()) == 9
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    expected = checkpoint(4).model
    assert index["metadata"]["total_size"] == sum(each.nbytes for each in expected.values())
    opened = model()
    library.load_torch_model(opened, folder, strict=True)
    found = opened.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "file",
    [
        "model-00002-of-00003.safetensors",
        "optimizer-00003-of-00003.safetensors",
        "model.safetensors.index.json",
        "experience.safetensors",
    ],
)
def test_a_part_that_fails_its_digest(
    tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    together(tmp_path, 3, (1, 2))
    folder = CheckpointFolder(tmp_path, Storage())
    path = folder.path(2) / file
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    said = f"{file} has another SHA-256 than its manifest says"
    with pytest.raises(CheckpointError, match=f"is damaged: {said}"):
        folder.load(2)
    meeting = Meeting(2)

    def choose(rank: int) -> int | None:
        world: Any = Threaded(rank, meeting)
        return CheckpointWriter(CheckpointFolder(tmp_path, Storage()), world).newest_intact()

    # Each process looks at a part of the files, and all take the same.
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(choose, range(2))) == [1, 1]
    assert f"step-00000002 is damaged ({said}): the one before it is used" in caplog.text


@pytest.mark.parametrize(("rank", "room"), [(0, 0), (0, 3), (0, 6), (1, 0), (2, 1)])
def test_a_full_disk_of_one_process(tmp_path: Path, rank: int, room: int) -> None:
    together(tmp_path, 3, (1,))
    said = together(tmp_path, 3, (2,), {rank: room})
    assert all("step-00000002: could not be written" in each for each in said), said
    assert all("No space left on device" in each for each in said)
    assert all("the checkpoint of step 1 is untouched" in each for each in said)
    assert CheckpointFolder(tmp_path, Storage()).newest_intact() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[CheckpointWriter, SlowDisk, CheckpointFolder]]:
    disk = SlowDisk()
    folder = CheckpointFolder(tmp_path, disk)
    yield CheckpointWriter(folder, ALONE, asynchronous=True), disk, folder
    disk.go.set()


def test_training_goes_on_while_it_is_written(
    slow: tuple[CheckpointWriter, SlowDisk, CheckpointFolder],
) -> None:
    writer, disk, folder = slow
    trained = checkpoint(3)
    writer.save(trained, keep=2, wait=False)
    for tensor in (*trained.model.values(), *trained.optimizer.values()):
        tensor.zero_()
    assert folder.steps() == []
    writer.check()
    disk.go.set()
    writer.finish()
    assert_same(folder.load(3), checkpoint(3))


def test_the_last_one_is_waited_for(
    slow: tuple[CheckpointWriter, SlowDisk, CheckpointFolder],
) -> None:
    writer, disk, folder = slow
    writer.save(checkpoint(3), keep=2, wait=False)
    disk.go.set()
    writer.save(checkpoint(4), keep=2)
    assert folder.steps() == [3, 4]


@pytest.mark.parametrize("noticed", ["check", "finish", "save"])
def test_what_goes_wrong_meanwhile_is_told(tmp_path: Path, noticed: str) -> None:
    CheckpointFolder(tmp_path, Storage()).save(checkpoint(1), keep=2)
    folder = CheckpointFolder(tmp_path, FullDisk(1))
    writer = CheckpointWriter(folder, ALONE, asynchronous=True)
    writer.save(checkpoint(2), keep=2, wait=False)
    # As at the next step, at the end, or at the next checkpoint.
    if noticed == "check":
        assert writer._thread is not None
        writer._thread.join()
    actions = {
        "check": writer.check,
        "finish": writer.finish,
        "save": lambda: writer.save(checkpoint(3), keep=2),
    }
    with pytest.raises(CheckpointError, match="No space left on device; the checkpoint of step 1"):
        actions[noticed]()
    assert folder.newest_intact() == 1


def test_what_goes_wrong_at_an_end_by_an_error_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = CheckpointWriter(CheckpointFolder(tmp_path, FullDisk(1)), ALONE, asynchronous=True)
    writer.save(checkpoint(2), keep=2, wait=False)
    writer.close()
    assert "No space left on device; no earlier checkpoint exists" in caplog.text


def test_an_end_by_an_error_waits_for_what_others_write_as_well(tmp_path: Path) -> None:
    """As after a loss that is no number, which all processes find."""
    meeting = Meeting(2)
    disk = SlowDisk()

    def write(rank: int) -> None:
        world: Any = Threaded(rank, meeting)
        folder = CheckpointFolder(tmp_path, Storage(writes=rank == 0))
        storage = disk if rank else None
        writer = CheckpointWriter(folder, world, asynchronous=True, storage=storage)
        writer.save(part_of(checkpoint(2), rank, 2), keep=2, wait=False)
        if rank == 0:
            threading.Timer(0.2, disk.go.set).start()
        writer.close()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, range(2)))
    assert CheckpointFolder(tmp_path, Storage()).newest_intact() == 2


def test_an_end_without_the_others_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_writer, "_LAST_S", 0.1)
    meeting = Meeting(2)
    let_end = threading.Event()

    def write(rank: int) -> None:
        world: Any = Threaded(rank, meeting)
        folder = CheckpointFolder(tmp_path, Storage(writes=rank == 0))
        # The second one stands still, so the first gets no word of it.
        storage = SlowDisk() if rank else None
        writer = CheckpointWriter(folder, world, asynchronous=True, storage=storage)
        writer.save(part_of(checkpoint(2), rank, 2), keep=2, wait=False)
        if rank == 0:
            world.is_broken = True
            writer.close()
            let_end.set()
        else:
            assert let_end.wait(10)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, range(2)))
    assert CheckpointFolder(tmp_path, Storage()).newest_intact() is None
