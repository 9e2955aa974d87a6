"""Which layers of a model are trained: all, the last few, or one more after the other from the top.

The layers' order is read from the names: see ``training.optimizers.depths``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from groundup.core.errors import RecipeError
from groundup.nn.part_names import BLOCK
from groundup.recipe.sections import Init
from groundup.training.optimizers import depths

__all__ = ["TrainedLayers", "freeze_all_but"]


def freeze_all_but(model: nn.Module, layers: int) -> None:
    """Leave only the last ``layers`` of ``model.blocks``, and what comes after them, to be trained.

    Raises:
        RecipeError: If the model has no blocks, or fewer, or no head of its own.
    """
    found = _depths(model, "recipe.init.train_layers")
    blocks = _count_blocks(found)
    if layers > blocks:
        raise RecipeError(
            "recipe.init.train_layers",
            f"is {layers}, but the model has {blocks} blocks; allowed: 0 (the head only) to"
            f" {blocks}",
            "Lower it, or leave it out to train everything",
        )
    # Nothing would be left to train, and the first backward pass would fail with no word of this.
    if layers == 0 and not _has_head(model, found):
        raise RecipeError(
            "recipe.init.train_layers",
            "is 0, but the model has no output layer of its own (it may share the embedding's"
            " weights)",
            "Set it to 1 or more",
        )
    for name, parameter in model.named_parameters():
        if found[name] > layers:
            parameter.requires_grad_(False)


class TrainedLayers:
    """Which layers are trained at a step: a pure function of the step, so that a resumed run is the
    same run.

    With ``unfreeze_every`` training begins with the head (with the last block too, where the model
    has no head of its own) and takes in one more block each time, from the top, down to
    ``train_layers`` or, where that is null, to what comes before the blocks. What is not trained
    has no gradient, so no optimizer moves or decays it; and its batch norms keep their statistics
    and normalise by them, as in evaluation.

    Args:
        model: Its parameters require a gradient exactly if they are to be trained at any time.
        init: The recipe's section.
        total_steps: Updates in the whole run.
        announce: Called with the step and a line whenever another layer joins.
        adapted: Whether adapters are trained and nothing else.

    Raises:
        RecipeError: If the model has no blocks to release, or the run is over before the first is.

    Source:
        Gradual unfreezing: Howard and Ruder, 2018, "Universal language model fine-tuning for text
        classification" (arXiv:1801.06146), section 3.3. Departs from it in counting steps instead
        of epochs.
    """

    def __init__(
        self,
        model: nn.Module,
        init: Init,
        total_steps: int,
        announce: Callable[[int, str], None],
        *,
        adapted: bool = False,
    ) -> None:
        self._announce = announce
        self._depth = -1
        self._every: int | None = None
        self._first = self._last = 0
        self._parameters: list[tuple[int, nn.Parameter]] = []
        self._norms: list[tuple[int, nn.Module]] = []
        # The base stays as it is, batch norms' statistics included: they are in no checkpoint.
        if adapted:
            norms = (module for module in model.modules() if isinstance(module, _NormBase))
            self._norms = [(1, norm) for norm in norms]
        if init.train_layers is None and init.unfreeze_every is None:
            return
        found = _depths(
            model,
            "recipe.init.unfreeze_every" if init.unfreeze_every else "recipe.init.train_layers",
        )
        trained = [(found[name], p) for name, p in model.named_parameters() if p.requires_grad]
        self._last = self._first = max(depth for depth, _ in trained)
        self._blocks = _count_blocks(found)
        self._norms = [
            (found[f"{name}.running_mean"], module)
            for name, module in model.named_modules()
            if f"{name}.running_mean" in found
        ]
        if init.unfreeze_every is not None:
            self._parameters = trained
            self._first = 0 if _has_head(model, found) else 1
            self._every = _in_steps(init.unfreeze_every, total_steps)
            self._check(total_steps)

    def _check(self, total_steps: int) -> None:
        assert self._every is not None
        if self._first >= self._last:
            raise RecipeError(
                "recipe.init.unfreeze_every",
                "has no effect: no further block is to be trained",
                "Raise init.train_layers, or remove it",
            )
        if self._every >= total_steps:
            raise RecipeError(
                "recipe.init.unfreeze_every",
                f"is {self._every} steps, but the run has {total_steps}: no block would ever be"
                " released",
                "Lower it, or set init.train_layers: 0 instead",
            )

    def depth(self, step: int) -> int:
        """Return how far down the layers are trained at a step: 0 the head, k the k-th block from
        the top."""
        return (
            self._last
            if self._every is None
            else min(self._last, self._first + step // self._every)
        )

    def release(self, step: int) -> None:
        """Let exactly the layers of this step be trained, once the model as a whole is in training
        mode."""
        depth = self.depth(step)
        # At every step, because ``model.train()`` after a validation has switched them all on.
        for below, norm in self._norms:
            norm.train(below <= depth)
        if self._every is None or depth == self._depth:
            return
        for below, parameter in self._parameters:
            parameter.requires_grad_(below <= depth)
        self._depth = depth
        self._announce(step, f"step {step}: training {self._in_words(depth)}")

    def _in_words(self, depth: int) -> str:
        if depth > self._blocks:
            return "every layer"
        return (
            f"the head and the last {depth} of {self._blocks} blocks" if depth else "the head only"
        )


def _depths(model: nn.Module, where: str) -> dict[str, int]:
    names = list(model.state_dict(keep_vars=True))
    if not any(map(BLOCK.match, names)):
        raise RecipeError(
            where,
            f"needs a model that lists its layers in order as 'blocks', and {type(model).__name__}"
            " has none",
            "Remove it, so that the whole model is trained",
        )
    return depths(names)


def _count_blocks(found: dict[str, int]) -> int:
    return max(depth for name, depth in found.items() if BLOCK.match(name))


def _has_head(model: nn.Module, found: dict[str, int]) -> bool:
    """Whether anything but norms comes after the blocks, other than weights shared with the
    embedding."""
    return any(
        found[name] == 0 and parameter.ndim >= 2 for name, parameter in model.named_parameters()
    )


def _in_steps(every: float, total_steps: int) -> int:
    # A fraction of a short run may be less than a step.
    return every if isinstance(every, int) else max(1, round(every * total_steps))
