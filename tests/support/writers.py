"""What every model that reads an input and writes a text keeps, whatever it reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["check_cached_and_double", "check_order_and_sums", "stir"]


def check_order_and_sums(model: Any, given: dict[str, Tensor]) -> None:
    """Check that no token looks ahead, and that with targets sums of losses are returned.

    Args:
        model: An ``EncoderDecoder`` with a vocabulary of 30.
        given: What its forward takes, with ``text`` (3, 6).
    """
    before = model.eval()(**given)
    changed = given["text"].clone()
    changed[:, 3] = (changed[:, 3] + 1) % 30
    after = model(**given | {"text": changed})
    # The token at a place is an input of the next place, and the start token of the first.
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=1e-6)
    assert not torch.allclose(after[:, 4], before[:, 4])
    targets = given["text"].where(torch.rand(3, 6) < 0.7, -100)
    kept = targets >= 0
    wanted = F.cross_entropy(before[kept], targets[kept], reduction="sum")
    uniform = -before[kept].log_softmax(-1).mean(-1).sum()
    found = model(**given, targets=targets)
    torch.testing.assert_close(found, torch.stack((wanted, uniform)), rtol=1e-5, atol=1e-4)
    nothing = model(**given, targets=torch.full_like(targets, -100))
    assert nothing.tolist() == [0.0, 0.0]


def check_cached_and_double(model: Any, given: dict[str, Tensor]) -> None:
    """Check that a text read in parts, and in double precision, gives the same.

    Args:
        model: As of ``check_order_and_sums``.
        given: Likewise.
    """
    whole = model.eval()(**given)
    read = {name: values for name, values in given.items() if name != "text"}
    with torch.no_grad():
        cache = model.new_cache(3, 6)
        model.encode(cache, **read)
        tokens = F.pad(given["text"][:, :-1], (1, 0), value=model.start_id)
        parts = [model(part, cache=cache) for part in tokens.split([2, 1, 3], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)
    numbers = {n: v.double() if v.is_floating_point() else v for n, v in given.items()}
    double = model.double()(**numbers)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), whole, rtol=0, atol=1e-5)


@torch.no_grad()
def stir(model: nn.Module) -> None:
    """Change norms and biases: fresh ones do nothing, and what does nothing cannot be mixed up."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter) * 0.2)
