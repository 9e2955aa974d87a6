"""PyTorch's optimizers, with parameters grouped by one rule: matrices are decayed, vectors and scalars are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from groundup.core.recipe import Optim
from groundup.nn.muon import Muon

__all__ = ["Optimizers", "build_optimizers"]


class Optimizers:
    """One optimizer, or two that step together (Muon for hidden matrices, AdamW for the rest).

    The state is a flat dictionary of tensors by parameter name, so that a checkpoint needs no pickle.
    """

    def __init__(self, parts: list[torch.optim.Optimizer], names: dict[nn.Parameter, str]) -> None:
        self.parts, self._names = parts, names

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every group."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr

    def step(self) -> None:
        """Update every parameter from its gradient."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Return every state tensor as ``"<parameter>/<state>"``."""
        return {f"{self._names[p]}/{key}": torch.as_tensor(value).contiguous() for p, key, value in self._states()}

    def _states(self) -> Iterator[tuple[Any, str, Any]]:
        for part in self.parts:
            for parameter, state in part.state.items():
                for key, value in state.items():
                    if value is not None:
                        yield parameter, key, value

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Restore what ``state_dict`` returned, with the tensors' own dtypes and the parameters' memory formats.

        Everything goes to the parameter's device: fused optimizers keep even the count of steps there.
        """
        owners = {
            self._names[p]: (part, p) for part in self.parts for group in part.param_groups for p in group["params"]
        }
        for part in self.parts:
            part.state.clear()
        for name, value in tensors.items():
            owner, _, key = name.rpartition("/")
            part, parameter = owners[owner]
            own = torch.empty_like(parameter, dtype=value.dtype) if value.shape == parameter.shape else value
            part.state[parameter][key] = own.copy_(value) if own is not value else value.to(parameter.device, copy=True)


def build_optimizers(optim: Optim, parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizers:
    """Return the optimizer of a recipe over the named parameters that require a gradient.

    Muon (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982) takes the hidden matrices; embeddings, heads, vectors
    and scalars go to AdamW. Its learning rate is matched to AdamW's RMS, so one ``lr`` serves both.
    """
    named = {p: name for name, p in parameters if p.requires_grad}
    matrices = [p for p in named if p.ndim >= 2]
    others = [p for p in named if p.ndim < 2]
    parts: list[torch.optim.Optimizer] = []
    if optim.name == "muon":
        hidden = [
            p for p in matrices if p.ndim == 2 and not any(word in named[p] for word in ("embed", "positions", "head"))
        ]
        chosen = set(hidden)
        matrices = [p for p in matrices if p not in chosen]
        parts.append(Muon(hidden, optim.lr, optim.weight_decay))
    if optim.weight_decay == 0.0:  # one group, one kernel
        matrices, others = [*matrices, *others], []
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((matrices, optim.weight_decay), (others, 0.0))
        if params
    ]
    if not groups:
        return Optimizers(parts, named)
    if optim.name == "sgd":
        parts.append(torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov, fused=True))
    else:
        kind = torch.optim.Adam if optim.name == "adam" else torch.optim.AdamW
        parts.append(kind(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True))
    return Optimizers(parts, named)
