"""The processes that train one run together, and what they exchange.

``torchrun`` starts them and tells each its number in the environment; without it there is one.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.distributed_c10d import Store

from groundup.contracts.data import Stream
from groundup.core.errors import TrainingError
from groundup.parallel import exchange
from groundup.parallel.board import Board
from groundup.parallel.failures import Absences, Member
from groundup.parallel.gradients import (
    GradientsInOrder,
    Norm,
    OwnGradients,
    SummedGradients,
    WholeNorm,
    own_norm,
)
from groundup.parallel.holdings import Holdings
from groundup.parallel.layout import Layout, connect, join_group, settle
from groundup.parallel.ownership import share_out
from groundup.parallel.sharded_step import ShardedGradients
from groundup.parallel.staged_tensors import StagedTensors
from groundup.parallel.starting import meet
from groundup.parallel.whole_steps import WholeSteps
from groundup.recipe.sections import Parallel

__all__ = ["ALONE", "World", "join"]

T = TypeVar("T")


class World:
    """The processes of a run, and this one's place among them.

    All of them call the same methods in the same order: each call is answered once every process
    has made it.

    Args:
        rank: This process's number, from 0.
        size: How many there are.
        local_size: How many of them are on this machine.
        absences: Names who does not answer; None for one process alone.
        store: What the processes were introduced by.
        device: ``cpu`` or ``cuda``, from which tensors are exchanged.
        timeout: How long to wait for an answer.

    Attributes:
        layout: How the work is laid out; until the recipe is read, as for one process.
        holdings: What this process has of each tensor of the model; until that is laid out, all.
        stages: Which tensors it has, where the layers are divided.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        local_size: int = 1,
        absences: Absences | None = None,
        store: Store | None = None,
        device: str = "cpu",
        timeout: timedelta = timedelta(seconds=600),
    ) -> None:
        self.rank = rank
        self.size = size
        self.local_size = local_size
        self._place = "the start"
        self.layout = Layout()
        self.holdings = Holdings({})
        self.stages: StagedTensors | None = None
        self._absences = absences
        self._store = store
        self._device = device
        self._timeout = timeout
        self._count = 0
        # A group of processes is made once, however many runs a program trains.
        self._connected: dict[tuple[int, ...], Layout] = {}
        self._groups: dict[tuple[Any, ...], ProcessGroup] = {}

    def arrange(self, parallel: Parallel) -> None:
        """Lay the work of a run out over the processes, all of which call this.

        Raises:
            RecipeError: If it cannot be laid out over so many.
        """
        settled = settle(parallel, self.size, self.rank)
        key = tuple(settled.sizes.values())
        if key not in self._connected:
            with self.naming("processes are grouped") if self.size > 1 else nullcontext():
                self._connected[key] = connect(settled, self._device, self._timeout)
        self.layout = self._connected[key]
        # What there was of the model of another run says nothing of this one's.
        self.holdings = Holdings({})
        self.stages = None

    def group(self, name: str, *axes: str) -> ProcessGroup:
        """Return a group of this process and those that differ from it in these axes alone, with
        exchanges of its own; all processes call this at the same time."""
        key = (name, *axes, *self.layout.sizes.values())
        if key not in self._groups:
            with self.naming("processes are grouped"):
                self._groups[key] = join_group(self.layout, self._timeout, *axes)
        return self._groups[key]

    @property
    def place(self) -> str:
        """What this process is doing, for errors: ``step 12, samples from 192``."""
        return self._place

    @place.setter
    def place(self, place: str) -> None:
        self._place = place
        if self._absences is not None:
            self._absences.move_to(place)

    def keep_stacks(self, folder: Path) -> None:
        """Write the stacks of a process that fails or gets no further to a run's folder
        ``failures``."""
        if self._absences is not None:
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            self._absences.keep_stacks(folder / "failures", attempt)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Which part of every batch this process computes."""
        return self.layout.data_rank

    @property
    def data_size(self) -> int:
        """Into how many parts a batch is divided."""
        return self.layout.data_size

    @property
    def joins_micro_batches(self) -> bool:
        """Whether the micro-batches of a step are computed together, stage by stage."""
        return self.layout.pipeline > 1

    def join_micro_batches(self, stream: Stream, number: int) -> Stream:
        """Return a stream of so many micro-batches a step as the steps take them: one by one, or
        all as one batch."""
        return WholeSteps(stream, number) if self.joins_micro_batches else stream

    @property
    def shares_layers(self) -> bool:
        """Whether processes with other samples need each other to compute a layer."""
        return self.layout.shard > 1

    def gather(self, value: Any, what: str) -> list[Any]:
        """Return what each process gives, in the order of their numbers: whatever JSON can say.

        Args:
            value: This process's.
            what: What is exchanged, for errors.
        """
        # One process exchanges nothing, not even with itself: its loop is as quick as it was.
        if self.size == 1:
            return [value]
        with self.naming(what):
            return exchange.gather_said(value, what)

    def gather_parts(self, value: Any, what: str) -> list[Any]:
        """Return what is said of each part of a batch, in order: once, however many processes share
        its samples. All of them give what they have."""
        found = self.gather(value, what)
        return [found[rank] for rank in self.layout.reporting_ranks]

    def gather_tensors(self, values: Tensor, what: str) -> Tensor:
        """Return (copies, ...) what each copy of the parameters gives; all are of one shape."""
        if self.layout.copies_size == 1:
            return values[None]
        with self.naming(what):
            return exchange.gather_tensors(values, what, self.layout.copies)

    def add_up(self, values: Tensor, what: str) -> None:
        """Replace a tensor by the sum of those of all copies of the parameters."""
        if self.layout.copies_size > 1:
            self._adder(self.layout.copies)(values, what)

    def first(self, action: Callable[[], T], what: str) -> T | None:
        """Let the first process do something, such as writing, and wait for it however long it
        takes; the others get None.

        Raises:
            TrainingError: On the others, if the first has failed.
        """
        if self.size == 1:
            return action()
        key = f"first/{self.count()}"
        assert self._store is not None
        assert self._absences is not None
        # There is no limit, as it may prepare a corpus for hours.
        if self.is_first:
            with self._absences.alive(key):
                done = action()  # a failure is told by whoever ends the process
            self._store.set(key, "done")
            return done
        with self.naming(what):
            self._absences.wait(key)
        return None

    def in_turn(self, build: Callable[[], T], what: str) -> T:
        """Return what each process builds, the first one before the others: these find what it has
        left on the disk."""
        built = self.first(build, what)
        return build() if built is None else built

    def trained(self, model: nn.Module) -> list[tuple[str, nn.Parameter]]:
        """Return what this process has of the parameters of its model that are trained."""
        return self.holdings.trained(model)

    def whole_model(self, model: nn.Module) -> AbstractContextManager[nn.Module]:
        """Return the context of a model with all of its parameters, to predict with."""
        return self.holdings.whole_model(model, self.naming)

    def gradients(
        self, parameters: Sequence[nn.Parameter], *, exact: bool, micro_batches: int
    ) -> OwnGradients | SummedGradients | GradientsInOrder | ShardedGradients:
        """Return what adds up the gradients of these parameters over all processes, with ``exact``
        in the order of the samples; a step has so many micro-batches on this process."""
        norm: Norm = own_norm
        if self.layout.holders_size > 1:
            norm = WholeNorm(self._repeats, self._adder(self.layout.holders))
        if self.holdings.sharded is not None:
            assert self.layout.mesh is not None
            texts: Callable[[Tensor, str], None] | None = None
            if self.layout.context > 1:
                texts = self._adder(self.layout.mesh.get_group("context"))
            everywhere = self._adder(self.layout.readers)
            return ShardedGradients(self.holdings.sharded, micro_batches, everywhere, texts, norm)
        if exact:
            return GradientsInOrder(parameters, self.gather_tensors, norm)
        if self.layout.copies_size > 1:
            return SummedGradients(parameters, self.add_up, norm)
        return OwnGradients(parameters, norm)

    def whole(
        self, tensors: Mapping[str, Tensor], *, shared_out: bool = False
    ) -> dict[str, Tensor]:
        """Return the model's whole tensors by name from what each process has of them.

        Args:
            tensors: This process's.
            shared_out: Give each to one process alone; the others get its shape, a tensor without
                memory. So no process has more than its share and one tensor at a time.
        """
        if self.size == 1:
            return dict(tensors)
        here = {name: tensor for name, tensor in tensors.items() if not tensor.is_meta}
        keeps = self._share_out(here) if shared_out else None
        with self.naming("tensors are gathered"):
            found = {**tensors, **self.holdings.whole(here, keeps)}
            # What another stage has one of its processes writes.
            if self.stages is None or shared_out:
                return found
            return self.stages.whole(found)

    def _share_out(self, tensors: Mapping[str, Tensor]) -> Callable[[str], bool]:
        """Return whether this process is the one to get a tensor."""
        held = {name: tensor.nbytes for name, tensor in tensors.items()}
        owners = share_out(self.gather(held, "tensors are shared out"))
        return lambda name: owners[name] == self.rank

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return of whole tensors by name what this process has."""
        if self.stages is not None:
            tensors = self.stages.own(tensors)
        return self.holdings.own(tensors)

    def fit(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what this process has of a model's tensors, as ``load_state_dict`` takes it."""
        return self.holdings.fit(tensors)

    def _adder(self, group: ProcessGroup | None) -> Callable[[Tensor, str], None]:
        """Return what replaces a tensor by the sum of those of a group."""

        def add_up(values: Tensor, what: str) -> None:
            with self.naming(what):
                exchange.add_up(values, what, group)

        return add_up

    def _repeats(self, parameter: nn.Parameter) -> int:
        """Return how many of the processes that have the model once together have the very numbers
        of a parameter that this one has."""
        stages = 1 if self.stages is None else self.stages.repeats(parameter)
        return stages * self.holdings.repeats(parameter)

    @property
    def is_broken(self) -> bool:
        """Whether an exchange has failed: no word may come from the others."""
        return self._absences is not None and self._absences.found

    def count(self) -> int:
        """Return a number that all processes, which call this in the same order, have once."""
        self._count += 1
        return self._count

    @property
    def board(self) -> Board:
        """What processes leave words for each other at, where there are several."""
        assert self._absences is not None
        return self._absences.board

    def refuse_differences(self, name: str, value: str) -> None:
        """Make sure that all processes have the same of something.

        Args:
            name: What it is: the code, the recipe, the data.
            value: A digest of it.

        Raises:
            TrainingError: Naming the first process that has another.
        """
        found = self.gather(value, f"{name} is compared")
        for rank, other in enumerate(found):
            if other != found[0]:
                raise TrainingError(
                    name,
                    f"{self._name(rank)} has another than {self._name(0)}: {other[:12]} and"
                    f" {found[0][:12]}",
                    "Put the same on every machine, and start again",
                )

    @contextlib.contextmanager
    def telling_failures(self) -> Iterator[None]:
        """Leave word of what ends this process, for those that wait for it, and name the process in
        the error."""
        try:
            with self._absences.named_hidden() if self._absences else nullcontext():
                yield
        except BaseException as error:
            if self._absences is not None:
                self._absences.tell_failure(error)
            raise

    def _name(self, rank: int) -> str:
        return self._absences.name(rank) if self._absences else "this process"

    def naming(self, what: str) -> AbstractContextManager[None]:
        """Return the context in which an exchange that fails names the processes which did not
        answer."""
        assert self._absences is not None
        return self._absences.named(what)


ALONE = World()
"""One process."""
# Once in a process, however many runs it trains.
_joined: list[World] = []


def join(timeout_s: float, device: str) -> World:
    """Return this process's world, once all of its processes are there.

    Args:
        timeout_s: How long to wait for an answer before somebody counts as absent.
        device: Of the recipe: ``cpu``, ``cuda`` or ``auto``; tensors are exchanged from there.

    Raises:
        TrainingError: If they do not find each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:  # ``torchrun`` has not started it with others
        return ALONE
    if _joined:
        return _joined[0]
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store, kind = meet(rank, size, timeout_s, device)
    own = Member(rank, platform.node(), os.getpid())
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    absences = Absences(store, own, size, timeout_s)
    world = World(rank, size, local_size, absences, store, kind, timedelta(seconds=timeout_s))
    introduced = world.gather([own.rank, own.host, own.process], "introductions")
    absences.introduce([Member(*each) for each in introduced])
    _joined.append(world)
    # At the end of the program, not of a run: a second one would have to meet again.
    atexit.register(dist.destroy_process_group)
    atexit.register(absences.close)
    return world
