"""Models asked how likely they find given tokens, with a gradient: what losses that compare whole
answers start from.

Shape legend: M tokens fed, V vocabulary.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from groundup.core.contracts.models import HiddenStates

__all__ = ["return_log_probs"]


def return_log_probs(model: nn.Module) -> nn.Module:
    """Return the model, changed to take ``scored``: (M,) the tokens that come next, below 0 where
    none is asked about.

    With it the model returns (M,) log p of each in nats, 0 where none is asked about; without it,
    what it always did. Logits of other tokens are never computed, nor all at once, where the model
    is a ``HiddenStates``.
    """
    model.forward = MethodType(_forward, model)
    return model


def _forward(model: nn.Module, *arguments: Any, scored: Tensor | None = None, **named: Any) -> Any:
    forward: Any = type(model).forward
    if scored is None:
        return forward(model, *arguments, **named)
    where = (scored >= 0).nonzero()[:, 0]
    targets = scored[where].long()
    if isinstance(model, HiddenStates):
        hidden = model.hidden(*arguments, **named).flatten(0, 1)
        found = model.log_probs_from(hidden.index_select(0, where), targets)
    else:
        logits = forward(model, *arguments, **named).flatten(0, 1).index_select(0, where)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        found = logits.log_softmax(1).gather(1, targets[:, None])[:, 0]
    return found.new_zeros(len(scored)).index_copy(0, where, found)
