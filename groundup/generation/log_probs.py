"""Models asked how likely they find given tokens, with a gradient: what losses that compare whole
answers start from.

Shape legend: M tokens fed, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.models import HiddenStates

__all__ = ["token_log_probs"]


def token_log_probs(model: nn.Module, scored: Tensor, **inputs: Any) -> Tensor:
    """Return (M,) log p in nats of the tokens that come next, 0 where none is asked about.

    Logits of other tokens are never computed, nor all at once, where the model is a
    ``HiddenStates``.

    Args:
        model: A language model.
        scored: (M,) the tokens that come next, below 0 where none is asked about.
        **inputs: Keyword arguments of the model's forward, M tokens in all.
    """
    # Most tokens of a prompt are not asked about: their logits are never computed.
    where = (scored >= 0).nonzero()[:, 0]
    targets = scored[where].long()
    if isinstance(model, HiddenStates):
        hidden = model.hidden(**inputs).flatten(0, 1)
        found = model.log_probs_from(hidden.index_select(0, where), targets)
    else:
        logits = model(**inputs).flatten(0, 1).index_select(0, where)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        found = logits.log_softmax(1).gather(1, targets[:, None])[:, 0]
    return found.new_zeros(len(scored)).index_copy(0, where, found)
