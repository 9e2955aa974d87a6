"""``parallel.context``: the tokens of a text are divided between processes.

Each process has a part of every text, as long as the others' and in their order. Layers that
compute each token by itself know nothing of it. Where tokens see each other, keys and values are
gathered from all processes, and their gradients are added up on the way back.

Shape legend: B texts, S positions of a text, T those of this process, G key and value heads, D head
    dimension, N boundaries.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from groundup.contracts.layers import SeesOtherTokens
from groundup.contracts.models import context_length_of
from groundup.core.errors import RecipeError, TrainingError
from groundup.core.seeding import reseed
from groundup.core.values import Batch, Loss, Term
from groundup.parallel.layout import Layout
from groundup.parallel.objective import Objective
from groundup.recipe.recipe import Recipe

__all__ = ["DividedTexts", "TextPartObjective", "check_texts", "divide_texts"]

_WHERE = "recipe.parallel.context"
# Families in which attention alone lets tokens see each other, and reads keys and values by
# ``SeesOtherTokens``. A convolution over tokens, for one, would need its neighbours as well.
_FAMILIES = ("bert", "gemma3", "gpt", "phi3")
_PER_TOKEN = re.compile(r"\w+ \(B, T\)")
_BOUNDARIES = "boundaries"


def check_texts(recipe: Recipe, size: int) -> None:
    """Make sure that texts can be divided between so many processes.

    Raises:
        RecipeError: If the model, the task or another setting does not allow it.
    """
    remedy = "Remove it, or share the batch with replicate"
    model = recipe.model.registered_name
    if model not in _FAMILIES:
        raise RecipeError(
            _WHERE,
            f"is {size}, but the texts of model {model!r} cannot be divided between processes;"
            f" allowed: {', '.join(_FAMILIES)}",
            remedy,
        )
    spec = recipe.task.batch_spec
    others = [name for name in spec if name != _BOUNDARIES and not _PER_TOKEN.fullmatch(spec[name])]
    if others:
        raise RecipeError(
            _WHERE,
            f"is {size}, but task {recipe.task.registered_name!r} reads {', '.join(others)}, which"
            " is no number for each token; allowed: tasks that predict tokens, such as"
            " language_modeling",
            remedy,
        )
    settings = recipe.model.model_dump()
    scaling = settings.get("rope_scaling") or {}
    by_length = "rope_scaling" if scaling.get("kind") == "dynamic" else "long_rope"
    if scaling.get("kind") == "dynamic" or settings.get("long_rope"):
        raise RecipeError(
            _WHERE,
            f"is {size}, but with recipe.model.{by_length} the angles of a token depend on how long"
            " its whole text is",
            f"Remove it, or {by_length}",
        )
    if recipe.distill is not None:
        raise RecipeError(
            _WHERE, f"is {size}, but the teacher of recipe.distill reads whole texts", remedy
        )
    length = context_length_of(recipe.model) or 0
    if length % size:
        raise RecipeError(
            _WHERE,
            f"{length} tokens of recipe.model.context_length cannot be divided evenly between"
            f" {size} processes",
            f"Set context_length to a multiple of {size}",
        )


def divide_texts(
    model: nn.Module,
    layout: Layout,
    naming: Callable[[str], AbstractContextManager[None]],
    *,
    compiled: bool,
) -> DividedTexts:
    """Let the layers of a model in which tokens see each other look for them in all processes.

    Args:
        model: Of a recipe that ``check_texts`` has passed.
        layout: Of the run, connected.
        naming: Names the process that does not answer while something is exchanged.
        compiled: Whether the model's layers will be compiled.

    Returns:
        What they find them by, wherever an objective of the run says so.
    """
    assert layout.mesh is not None, "the layout is connected"
    place = layout.places["context"]
    group = layout.mesh.get_group("context")
    texts = DividedTexts(group, place, layout.context, naming, compiled=compiled)
    for layer in model.modules():
        if isinstance(layer, SeesOtherTokens):
            layer.others = texts
    return texts


class DividedTexts:
    """What the processes of the axis have of each text, for layers in which tokens see each other.

    Args:
        group: The processes, in the order of their parts.
        place: Which part is this process's, from 0.
        size: How many there are.
        naming: Names the process that does not answer while something is exchanged.
        compiled: Whether the layers that look for tokens are compiled.
    """

    def __init__(
        self,
        group: ProcessGroup,
        place: int,
        size: int,
        naming: Callable[[str], AbstractContextManager[None]],
        *,
        compiled: bool = False,
    ) -> None:
        self.group = group
        self.place = place
        self.size = size
        self.naming = naming
        self._divided = False
        self._documents: Tensor | None = None
        # The same for all layers of a kind, and large: made once a forward pass.
        self._seen: dict[tuple[bool, int | None], Tensor] = {}
        self._exchange: Callable[[Tensor, DividedTexts], Tensor] = _gather_tokens
        if compiled:
            # It would try to look into the exchange, and warn that it cannot.
            self._exchange = torch.compiler.disable(_gather_tokens)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: dict[int, Any]) -> DividedTexts:
        # A copy of the model is on the same processes.
        return self

    @property
    def divided(self) -> bool:
        """Whether the present forward pass reads a part of each text."""
        return self._divided

    @contextlib.contextmanager
    def reading(self, documents: Tensor | None) -> Iterator[None]:
        """Let layers look for tokens elsewhere, within.

        Only here, because other calls give a model whole texts: those that write samples, say.

        Args:
            documents: (B, S) the number of the document that each token belongs to, of whole
                texts; None: each text is one.
        """
        self._divided = True
        self._documents = documents
        try:
            yield
        finally:
            self._divided = False
            self._documents = None
            self._seen = {}

    def gather(
        self, key: Tensor, value: Tensor, *, causal: bool, window: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the keys and values of all processes, and what each own token sees of them; see
        ``OtherTokens``."""
        own = key.shape[1]
        # In one exchange, side by side.
        both = self._exchange(torch.cat((key, value), 2), self)
        if causal:
            # What comes later is seen by nobody here.
            both = both[:, : (self.place + 1) * own]
        keys, values = both.chunk(2, 2)
        kind = (causal, window)
        if kind not in self._seen:
            self._seen[kind] = self._mask(own, both.shape[1], causal, window, key.device)
        return keys, values, self._seen[kind]

    def _mask(
        self, own: int, length: int, causal: bool, window: int | None, device: torch.device
    ) -> Tensor:
        """Return (B or 1, 1, T, length) which of the first tokens of each text is seen by each of
        this process's."""
        first = self.place * own
        places = torch.arange(length, device=device)
        distance = places[first : first + own, None] - places
        seen = torch.ones_like(distance, dtype=torch.bool)
        if causal:
            seen = distance >= 0
            if window is not None:
                seen &= distance < window
        if self._documents is None:
            return seen[None, None]
        mine = self._documents[:, first : first + own, None]
        return (seen & (mine == self._documents[:, None, :length]))[:, None]


class _GatherTokens(torch.autograd.Function):
    """The tokens (B, T, ...) of all processes, (B, S, ...); backward the gradients of all of them
    are added up where the token is."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, texts: DividedTexts) -> Tensor:
        ctx.texts = texts
        found = own.new_empty((texts.size, *own.shape))
        with texts.naming("keys and values are gathered"):
            dist.all_gather(list(found.unbind()), own.contiguous(), texts.group)
        return found.transpose(0, 1).flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        texts = ctx.texts
        rows, length, *rest = grads[0].shape
        parts = grads[0].reshape(rows, texts.size, length // texts.size, *rest).transpose(0, 1)
        own = parts.new_empty(parts.shape[1:])
        with texts.naming("gradients of keys and values are added up"):
            dist.reduce_scatter(own, list(parts.contiguous().unbind()), group=texts.group)
        return own, None


def _gather_tokens(own: Tensor, texts: DividedTexts) -> Tensor:
    """Return (B, S, ...) the tokens of all processes, from this one's (B, T, ...)."""
    found: Tensor = _GatherTokens.apply(own, texts)  # type: ignore[no-untyped-call]
    return found


class TextPartObjective:
    """The objective of a step, computed by the processes of the axis together: each by its part of
    every text.

    What it returns is of whole texts, the same on all of them, while gradients flow back into the
    part of this process alone: those of the parameters are added up over the axis, as over copies.

    Args:
        objective: What is computed.
        texts: What the model's layers find other tokens by.
        spec: The task's ``batch_spec``.
    """

    def __init__(self, objective: Objective, texts: DividedTexts, spec: Mapping[str, str]) -> None:
        self.name = objective.name
        self._objective = objective
        self._texts = texts
        self._divided = [name for name in spec if _PER_TOKEN.fullmatch(spec[name])]
        self._last: tuple[Batch, Batch, Tensor | None] | None = None

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Return the outputs for this process's part of a batch."""
        own, documents = self._part_of(batch)
        if model.training and self._texts.place:
            # All were seeded alike: the same places of each part would be dropped.
            reseed(torch.initial_seed(), "part of a text", self._texts.place)
        with self._texts.reading(documents):
            return self._objective.forward(model, own)

    def __call__(self, outputs: Any, batch: Batch) -> Loss:
        """Return the loss of whole texts."""
        own, _ = self._part_of(batch)
        return self._add_up(self._objective(outputs, own))

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return what the loss of whole texts will count."""
        return self._objective.counts(batch)

    def _part_of(self, batch: Batch) -> tuple[Batch, Tensor | None]:
        """Return this process's part of a batch, and the documents of whole texts."""
        # Asked for twice, by the forward pass and by the loss.
        if self._last is None or self._last[0] is not batch:
            self._last = (batch, *self._divide(batch))
        return self._last[1:]

    def _divide(self, batch: Batch) -> tuple[Batch, Tensor | None]:
        rows, length = batch[self._divided[0]].shape
        part, left = divmod(length, self._texts.size)
        if left:
            raise TrainingError(
                _WHERE,
                f"a batch has texts of {length} tokens, which {self._texts.size} processes cannot"
                " divide evenly",
                "Choose another length, or remove it",
            )
        columns = slice(self._texts.place * part, (self._texts.place + 1) * part)
        own = dict(batch)
        for name in self._divided:
            own[name] = batch[name][:, columns].contiguous()
        if _BOUNDARIES not in batch:
            return own, None
        documents = _number_documents(batch[_BOUNDARIES], rows, length)
        # Padded to a size that depends on the shapes alone, as the ones of whole texts are.
        size = len(batch[_BOUNDARIES]) + rows
        own[_BOUNDARIES] = _boundaries_of(documents[:, columns], size)
        return own, documents

    def _add_up(self, loss: Loss) -> Loss:
        """Return a loss with its sums over all parts of the texts."""
        totals = [term.total for term in loss.terms.values()]
        counts = [term.count for term in loss.terms.values()]
        watched = list(loss.metrics.values())
        numbers = [*totals, *counts, *watched]
        # All in one exchange, in fp64, in which counts are whole numbers far beyond 2**24.
        device = totals[0].device
        row = torch.stack([each.detach().to(device, torch.float64).view(()) for each in numbers])
        with self._texts.naming("losses of parts of texts are added up"):
            dist.all_reduce(row, group=self._texts.group)
        sums = row.unbind()
        terms = {}
        for number, (name, term) in enumerate(loss.terms.items()):
            total: Tensor = _WithGradientOf.apply(term.total, sums[number])  # type: ignore[no-untyped-call]
            terms[name] = Term(total, sums[len(totals) + number], term.weight)
        rest = sums[2 * len(totals) :]
        return Loss(terms, dict(zip(loss.metrics, rest, strict=True)))


class _WithGradientOf(torch.autograd.Function):
    """A sum over all processes, of which this one's part passes gradients on."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, whole: Tensor) -> Tensor:
        ctx.like = part.dtype, part.shape
        return whole.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        dtype, shape = ctx.like
        return grads[0].to(dtype).view(shape), None


def _number_documents(boundaries: Tensor, rows: int, length: int) -> Tensor:
    """Return (B, S) the number of the document that each token is of, from their starts (N,) over
    the B*S tokens."""
    starts = torch.zeros(rows * length + 1, dtype=torch.int64, device=boundaries.device)
    starts.index_add_(0, boundaries.long(), torch.ones_like(boundaries, dtype=torch.int64))
    return starts[:-1].cumsum(0).view(rows, length)


def _boundaries_of(documents: Tensor, size: int) -> Tensor:
    """Return (size,) int32, the starts of documents over B*T tokens, from their numbers (B, T).

    Each row begins one: the part of a document that is elsewhere is no part of these rows.
    """
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    found = begins.flatten().nonzero()[:, 0].int()
    return torch.cat((found, found.new_full((size - len(found),), documents.numel())))
