"""A model that is a sequence of blocks, cut into stages that run one after the other.

A stage runs the forward of the model itself, as it is written. In place of the blocks of other
stages there are stand-ins: what comes before a stage is passed over, its first block reads what has
arrived, and its last one ends the forward there. So no model says anything twice, or of stages.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.core.errors import RecipeError

__all__ = [
    "Stage",
    "StageEnd",
    "cut_model",
    "divide_blocks",
    "front_of",
    "leave_to_others",
    "shared_parts",
]

_WHERE = "recipe.parallel.pipeline"


class StageEnd(BaseException):
    """The end of a stage's forward; no error, so that nothing which handles errors catches it.

    Attributes:
        leaving: (B, ...) what the next stage reads.
    """

    def __init__(self, leaving: Tensor) -> None:
        super().__init__()
        self.leaving = leaving


class _Arrival:
    """What a stage reads of the one before it."""

    def __init__(self) -> None:
        self.state: Tensor | None = None

    def give(self, x: Tensor, *others: Any, **named: Any) -> Tensor:
        """Return it, in place of what a block makes of x."""
        assert self.state is not None, "the state has arrived before the stage is run"
        return self.state


class _StandIn(nn.Module):
    """What is run in place of a part of the model.

    Args:
        part: The part, which still answers what else the model asks it, as how it was made.
        act: What is done with what the part would read.
    """

    def __init__(self, part: nn.Module, act: Callable[..., Tensor]) -> None:
        super().__init__()
        # Past registration: the parameters are the whole model's.
        self.__dict__["part"] = part
        self.__dict__["act"] = act

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["part"], name)

    def forward(self, *read: Any, **named: Any) -> Tensor:
        given: Tensor = self.__dict__["act"](*read, **named)
        return given


def _pass_over(x: Tensor, *others: Any, **named: Any) -> Tensor:
    """Return what a block of another stage reads, as what it gives."""
    return x


def _give_nothing(x: Tensor, *others: Any, **named: Any) -> Tensor:
    """Return something in place of what comes before the blocks, of another stage: nobody reads
    it."""
    if x.is_floating_point():
        return x
    return torch.zeros(*x.shape, 1, device=x.device)


def _end_with(block: nn.Module) -> Callable[..., Tensor]:
    """Return what ends a stage's forward with its last block."""

    def end(*read: Any, **named: Any) -> Tensor:
        given = block(*read, **named)
        if not isinstance(given, Tensor):
            raise RecipeError(
                _WHERE,
                f"a block ({type(block).__name__}) gives a {type(given).__name__}, but a stage"
                " passes on one tensor",
                "Let the block return one, or remove it",
            )
        raise StageEnd(given)

    return end


class Stage:
    """One stage of a model.

    Args:
        model: The whole one.
        blocks: Which of its blocks are this stage's.
        kept: Names of the parts before the blocks that it runs itself.

    Attributes:
        model: It, with the other stages' blocks passed over; its parameters are the model's own.
        is_first: Whether it begins with the model's inputs.
        is_last: Whether its outputs are the model's.
    """

    def __init__(self, model: nn.Module, blocks: range, kept: frozenset[str]) -> None:
        layers = _blocks_of(model)
        self._whole = model
        self._arrival = _Arrival()
        self.blocks = blocks
        self.is_first = blocks.start == 0
        self.is_last = blocks.stop == len(layers)
        # A shallow copy, with a table of parts of its own: the model stays as it is.
        self.model = copy.copy(model)
        self.model.__dict__["_modules"] = dict(model._modules)
        stand_ins = [self._stand_in(number, block) for number, block in enumerate(layers)]
        self.model._modules["blocks"] = nn.ModuleList(stand_ins)
        for name, part in front_of(model).items():
            if not self.is_first and name not in kept:
                self.model._modules[name] = _front_elsewhere(part)

    def _stand_in(self, number: int, block: nn.Module) -> nn.Module:
        if number == self.blocks.stop - 1 and not self.is_last:
            return _StandIn(block, _end_with(block))
        if number in self.blocks:
            return block
        if number == self.blocks.start - 1:
            return _StandIn(block, self._arrival.give)
        return _StandIn(block, _pass_over)

    def run(self, forward: Callable[[nn.Module], Any], arrived: Tensor | None) -> Any:
        """Return what the next stage reads, or the model's outputs.

        Args:
            forward: Calls the model that it is given.
            arrived: What the stage before has given.

        Raises:
            RecipeError: If the model does not run its blocks as stages need it.
        """
        # Set by ``train`` and ``eval`` of the whole one.
        self.model.training = self._whole.training
        self._arrival.state = arrived
        try:
            outputs = forward(self.model)
        except StageEnd as end:
            return end.leaving
        finally:
            self._arrival.state = None
        if not self.is_last:
            raise RecipeError(
                _WHERE,
                f"the forward of {type(self.model).__name__} ends without block"
                f" {self.blocks.stop - 1}, though others come after it",
                "Let it run all modules in self.blocks, in order, or remove it",
            )
        return outputs


def divide_blocks(blocks: int, stages: int, divisible: int) -> list[range]:
    """Return the blocks of each stage: as many for each as can be, the first ones having one more.

    Args:
        blocks: How many there are.
        stages: How many to make.
        divisible: Between the first so many they may be divided; the others stay together, in the
            last stage.

    Raises:
        RecipeError: If there are too few.
    """
    # What stays together is at the end.
    together = blocks - divisible
    most = divisible if not together else divisible + 1
    if stages > most:
        what = f"{blocks} blocks" if not together else f"{divisible} blocks before the decoder"
        raise RecipeError(
            _WHERE,
            f"needs a block for each of {stages} stages, but the model has {what}, which make"
            f" {most} at most",
            f"Set pipeline to {most} or less, or choose a deeper model",
        )
    wanted = -(-blocks // stages)
    if together <= wanted:
        size, more = divmod(blocks, stages)
        sizes = [size + (number < more) for number in range(stages)]
        # The last one has the fewest, and may have to have more.
        if sizes[-1] >= together:
            return _ranges(sizes)
    size, more = divmod(divisible, stages - 1)
    return _ranges([*(size + (number < more) for number in range(stages - 1)), together])


def _ranges(sizes: Sequence[int]) -> list[range]:
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def shared_parts(model: nn.Module) -> frozenset[str]:
    """Return the parts before the blocks that the last stage needs as well as the first: the
    embedding, where it is the output layer too."""
    # An output layer of its own reads nothing but the states.
    own = isinstance(model._modules.get("head"), nn.Linear)
    return frozenset() if own else frozenset(front_of(model))


def cut_model(
    model: nn.Module, stages: Sequence[range], own: Sequence[int], shared: frozenset[str]
) -> list[Stage]:
    """Return the stages of this process.

    Args:
        model: The whole one.
        stages: The blocks of all stages.
        own: Numbers of this process's.
        shared: Parts before the blocks that the last stage has as well as the first.
    """
    found = []
    for number in own:
        last = number == len(stages) - 1
        found.append(Stage(model, stages[number], shared if last else frozenset()))
    return found


def leave_to_others(model: nn.Module, stages: Sequence[Stage], shared: frozenset[str]) -> None:
    """Free the memory of all parts of a model that none of this process's stages has.

    They stay where they are, without numbers (on PyTorch's ``meta`` device), so that tensors are
    called as in the whole model.
    """
    front = front_of(model)
    first = any(stage.is_first for stage in stages)
    last = any(stage.is_last for stage in stages)
    absent = [part for name, part in front.items() if not first and not (last and name in shared)]
    own = {number for stage in stages for number in stage.blocks}
    absent += [block for n, block in enumerate(_blocks_of(model)) if n not in own]
    if not last:
        names = [*front, "blocks"]
        absent += [part for name, part in model.named_children() if name not in names]
    for part in absent:
        part.requires_grad_(requires_grad=False).to("meta")


def _blocks_of(model: nn.Module) -> nn.ModuleList:
    blocks = model._modules.get("blocks")
    assert isinstance(blocks, nn.ModuleList), "checked before a model is cut"
    return blocks


def front_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return what a model has before its blocks. Parts are made in the order in which they are
    run: optimizers keep it, too."""
    front = {}
    for name, part in model.named_children():
        if name == "blocks":
            break
        front[name] = part
    return front


def _front_elsewhere(part: nn.Module) -> nn.Module:
    # A list is gone through, and its parts are called.
    if isinstance(part, nn.ModuleList):
        return nn.ModuleList(_front_elsewhere(each) for each in part)
    return _StandIn(part, _give_nothing)
