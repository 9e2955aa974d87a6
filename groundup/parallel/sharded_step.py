"""A step of processes that each hold a part of every parameter: its objective and its gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from groundup.core.passes import one_pass_each
from groundup.core.values import Batch, Loss
from groundup.parallel.gradients import Norm
from groundup.parallel.objective import Objective

if TYPE_CHECKING:
    # PyTorch's FSDP takes most of a second to import, and most runs do without.
    from groundup.parallel.shard import ShardedModel

__all__ = ["ShardedGradients", "ShardedObjective"]

Exchange = Callable[[Tensor, str], None]


class ShardedObjective:
    """An objective whose model gathers its parameters while they are needed.

    Args:
        objective: What is computed.
        sharded: Its model.
    """

    def __init__(self, objective: Objective, sharded: ShardedModel) -> None:
        self.name = objective.name
        self._objective = objective
        self._sharded = sharded

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Return the outputs for a batch."""
        # In a list of its own: FSDP would look for tensors in it, to begin the backward pass at.
        # It begins at the losses.
        held: list[Any] = []
        with one_pass_each():
            self._sharded.run(lambda: held.append(self._objective.forward(model, batch)))
        return held[0]

    def __call__(self, outputs: Any, batch: Batch) -> Loss:
        """Return the loss, which may use the model's weights as well."""
        found: list[Loss] = []
        with one_pass_each():
            self._sharded.run(partial(self._compute, outputs, batch, found))
        if not torch.is_grad_enabled():
            # A backward pass frees them; without one, they would miss the next update.
            self._sharded.let_go()
        return found[0]

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return what the loss will count."""
        return self._objective.counts(batch)

    def _compute(self, outputs: Any, batch: Batch, found: list[Loss]) -> list[Tensor]:
        """Note the loss, and return its totals, at which the backward pass begins."""
        loss = self._objective(outputs, batch)
        # FSDP warns of views, which might be changed in place.
        terms = {
            name: dataclasses.replace(term, total=term.total.clone())
            for name, term in loss.terms.items()
        }
        found.append(dataclasses.replace(loss, terms=terms))
        return [term.total for term in terms.values() if term.total.requires_grad]


class ShardedGradients:
    """The gradients of this process's parts, added up over all processes.

    FSDP adds up over ``shard`` in each backward pass, and over ``replicate`` in the last one of a
    step.

    Args:
        sharded: The model.
        micro_batches: How many backward passes a step has.
        add_up: Replaces a tensor by its sum over all processes that read other samples or tokens.
        add_up_texts: The same over those that read other tokens of the same samples; None: there
            are none.
        norm: Of the whole model's.
    """

    def __init__(
        self,
        sharded: ShardedModel,
        micro_batches: int,
        add_up: Exchange,
        add_up_texts: Exchange | None,
        norm: Norm,
    ) -> None:
        self._sharded = sharded
        self._micro_batches = micro_batches
        self._add_up = add_up
        self._add_up_texts = add_up_texts
        self._norm = norm
        self._parameters: Sequence[nn.Parameter] = [each for _, each in sharded.trained]
        self._begin()

    def norm(self) -> float:
        """Return the norm of all gradients."""
        return self._norm(self._parameters)

    def collect(self) -> None:
        """Take note of a micro-batch that was back-propagated."""
        self._collected += 1
        self._sharded.set_last(self._collected == self._micro_batches - 1)

    def add_up(self) -> None:
        """Take what FSDP has added up, and add up what it knows nothing of."""
        sharded = self._sharded
        sharded.take_gradients()
        own = [part for name, part in sharded.trained if name in sharded.whole_names]
        reached = self._exchange_small(own)
        for (_, part), known in zip(sharded.trained, reached, strict=True):
            # What no sample reached has no gradient on one process either.
            if not known:
                part.grad = None
        given = [part.grad for part in self._parameters if part.grad is not None]
        if self._add_up_texts is not None and given:
            divided = [
                part.grad for name, part in sharded.trained if name not in sharded.whole_names
            ]
            flat = torch.cat([each.flatten() for each in divided if each is not None])
            self._add_up_texts(flat, "gradients are added up")
            place = 0
            for each in divided:
                if each is not None:
                    each.copy_(flat[place : place + each.numel()].view_as(each))
                    place += each.numel()
        self._begin()

    def _exchange_small(self, own: Sequence[nn.Parameter]) -> list[bool]:
        """Add up the gradients of single numbers, and return which of all parameters any process
        has reached: in one exchange, since both are small."""
        sharded = self._sharded
        reached = [
            float(
                name in sharded.reached or (name in sharded.whole_names and part.grad is not None)
            )
            for name, part in sharded.trained
        ]
        values = [0.0 if part.grad is None else part.grad.item() for part in own]
        small = torch.tensor([*reached, *values], dtype=torch.float64)
        self._add_up(small, "gradients are added up")
        sums = small[len(reached) :]
        for part, value in zip(own, sums, strict=True):
            part.grad = value.to(part.dtype).to(part.device)
        return [bool(count) for count in small[: len(reached)]]

    def _begin(self) -> None:
        self._collected = 0
        self._sharded.reached.clear()
        self._sharded.set_last(self._micro_batches == 1)
