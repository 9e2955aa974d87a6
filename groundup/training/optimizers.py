"""PyTorch's optimizers, with parameters grouped by rules.

Matrices are decayed, vectors and scalars are not; where ``layer_decay`` says so, lower layers learn
more slowly; and where ``lora_plus_ratio`` says so, the two matrices of an adapter learn at
different rates.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from groundup.core.errors import RecipeError
from groundup.nn.part_names import BLOCK
from groundup.recipe.adapter import Adapter
from groundup.recipe.sections import Optim
from groundup.training.muon import Muon

__all__ = ["Optimizers", "build_optimizers", "depths"]


class Optimizers:
    """One optimizer, or two that step together (Muon for hidden matrices, AdamW for the rest).

    The state is a flat dictionary of tensors by parameter name, so that a checkpoint needs no
    pickle.
    """

    def __init__(self, parts: list[torch.optim.Optimizer], names: dict[nn.Parameter, str]) -> None:
        self.parts = parts
        self._names = names
        # Past the decorators of torch 2.13, which import the compiler (2 s) and record each step
        # for a profiler.
        self._steps: list[Callable[[Any], object]] = [
            inspect.unwrap(type(part).step) for part in parts
        ]

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every group: its ``lr_factor`` times ``lr``."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr * group["lr_factor"]

    def step(self) -> None:
        """Update every parameter from its gradient."""
        with torch.no_grad():
            for part, step in zip(self.parts, self._steps, strict=True):
                step(part)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        # None, not zeros: what is frozen for now has no gradient, and must get no decay either.
        for parameter in self._names:
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return every state tensor as ``"<parameter>/<state>"``."""
        return {
            f"{self._names[p]}/{key}": torch.as_tensor(value).contiguous()
            for p, key, value in self._states()
        }

    def _states(self) -> Iterator[tuple[Any, str, Any]]:
        for part in self.parts:
            for parameter, state in part.state.items():
                for key, value in state.items():
                    if value is not None:
                        yield parameter, key, value

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Restore what ``state_dict`` returned, with the tensors' own dtypes and the parameters'
        memory formats.

        Everything goes to the parameter's device: fused optimizers keep even the count of steps
        there.
        """
        owners = {
            self._names[p]: (part, p)
            for part in self.parts
            for group in part.param_groups
            for p in group["params"]
        }
        # Not PyTorch's load_state_dict, which casts the state to the parameters' dtype.
        for part in self.parts:
            part.state.clear()
        for name, value in tensors.items():
            owner, _, key = name.rpartition("/")
            part, parameter = owners[owner]
            own = (
                torch.empty_like(parameter, dtype=value.dtype)
                if value.shape == parameter.shape
                else value
            )
            part.state[parameter][key] = (
                own.copy_(value) if own is not value else value.to(parameter.device, copy=True)
            )


def depths(names: Sequence[str]) -> dict[str, int]:
    """Return how far below the output each tensor of a model is, counted in blocks.

    0 is what comes after the blocks (a last norm, the head), 1 the last of ``blocks``, and so on;
    what comes before them (embeddings, positions, a stem) is one below the first. Blocks without
    a tensor are not counted.

    Args:
        names: In the model's own order, in which what is computed first was made first.
    """
    numbers = {name: int(found[1]) for name in names if (found := BLOCK.match(name))}
    place = {
        number: place for place, number in enumerate(sorted(set(numbers.values()), reverse=True), 1)
    }
    depth: dict[str, int] = {}
    seen = False
    for name in names:
        seen = seen or name in numbers
        before = name.startswith(("embed", "positions")) or not (seen or name.startswith("head"))
        outside = len(place) + 1 if before else 0
        depth[name] = place[numbers[name]] if name in numbers else outside
    return depth


def build_optimizers(
    optim: Optim,
    parameters: Iterable[tuple[str, nn.Parameter]],
    adapter: Adapter | None = None,
    products: torch.dtype = torch.bfloat16,
) -> Optimizers:
    """Return the optimizer of a recipe over the named parameters that require a gradient.

    ``products`` is what Muon orthogonalises in; see ``Muon``.

    Muon (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982) takes the hidden matrices;
    embeddings, heads, vectors and scalars go to AdamW. Its learning rate is matched to AdamW's RMS,
    so one ``lr`` serves both.

    With ``layer_decay`` d the learning rate of the head stays, that of the k-th block from the top
    is d**k times as high, and that of the embeddings d**(blocks + 1) times. With an adapter's
    ``lora_plus_ratio`` the learning rate of every matrix B is that times its A's.

    Raises:
        RecipeError: If ``layer_decay`` has no effect, because no parameter is in a block.

    Source:
        Layer-wise rates: Howard and Ruder, 2018 (arXiv:1801.06146), section 3.2; with the head at
        the full rate as in Clark et al., ELECTRA, 2020 (arXiv:2003.10555), appendix A. LoRA+: Hayou
        et al., 2024 (arXiv:2402.12354).
    """
    _spare_the_compiler()
    named = {p: name for name, p in parameters if p.requires_grad}
    factors = _lr_factors(optim.layer_decay, named)
    if adapter is not None:
        factors |= {
            p: factors[p] * adapter.lora_plus_ratio
            for p, name in named.items()
            if name.endswith(".lora_B")
        }
    # Norms, biases and scalars are not decayed: their size means something by itself.
    matrices = [p for p in named if p.ndim >= 2]
    others = [p for p in named if p.ndim < 2]
    parts: list[torch.optim.Optimizer] = []
    hidden: list[nn.Parameter] = []
    if optim.name == "muon":
        hidden = [
            p
            for p in matrices
            if p.ndim == 2 and not any(word in named[p] for word in ("embed", "positions", "head"))
        ]
        chosen = set(hidden)
        matrices = [p for p in matrices if p not in chosen]
    if hidden:
        parts.append(
            Muon(
                _groups(hidden, optim.weight_decay, factors), optim.lr, optim.weight_decay, products
            )
        )
    if optim.weight_decay == 0.0:  # one group, one kernel
        matrices = [*matrices, *others]
        others = []
    groups = [*_groups(matrices, optim.weight_decay, factors), *_groups(others, 0.0, factors)]
    if not groups:
        return Optimizers(parts, named)
    if optim.name == "sgd":
        parts.append(
            torch.optim.SGD(
                groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov, fused=True
            )
        )
    else:
        kind = torch.optim.Adam if optim.name == "adam" else torch.optim.AdamW
        parts.append(kind(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True))
    return Optimizers(parts, named)


def _spare_the_compiler() -> None:
    """Let optimizers be made without importing the compiler, only to be left out of what it
    compiles: 2 to 3 s."""
    # ``__wrapped__`` is there if PyTorch has decorated the method, which depends on its version.
    plain = getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None)
    if plain is not None and "torch._dynamo" not in sys.modules:
        plain.__dict__.setdefault("__dynamo_disable", plain)


def _lr_factors(decay: float, named: dict[nn.Parameter, str]) -> dict[nn.Parameter, float]:
    if decay == 1:
        return dict.fromkeys(named, 1.0)
    if not any(map(BLOCK.match, named.values())):
        raise RecipeError(
            "recipe.optim.layer_decay",
            "has no effect: none of the trained parameters is in one of the model's blocks",
            "Remove it, or train some of the blocks",
        )
    found = depths(list(named.values()))
    return {p: decay ** found[name] for p, name in named.items()}


def _groups(
    parameters: list[nn.Parameter], weight_decay: float, factors: dict[nn.Parameter, float]
) -> list[dict[str, Any]]:
    """Return a group for each factor that occurs."""
    # A kernel is launched for each group: as few as there are factors.
    ordered = groupby(sorted(parameters, key=lambda p: -factors[p]), key=lambda p: factors[p])
    return [
        {"params": list(same), "weight_decay": weight_decay, "lr_factor": factor}
        for factor, same in ordered
    ]
