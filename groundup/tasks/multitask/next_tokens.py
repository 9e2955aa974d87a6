"""Next-token prediction next to other tasks: on the padded texts that a classifier reads, with the
same layers.

Legend: B texts, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.contracts.classifier_models import TokenLogits
from groundup.contracts.processors import TextProcessor
from groundup.core.errors import RecipeError
from groundup.core.values import Batch, Example, Loss, Term
from groundup.generation.scoring import device_of, evaluating
from groundup.metrics.compression import bits_per_byte, perplexity

__all__ = [
    "check_token_model",
    "count_next_tokens",
    "evaluate_next_tokens",
    "next_token_logits",
    "next_token_loss",
]

_AT_ONCE = 64


def check_token_model(model: nn.Module, processor: Any, where: str) -> None:
    """Make sure that next tokens can be predicted.

    Raises:
        RecipeError: If the processor makes no tokens, or the model has no method
            ``token_logits(tokens, lengths)`` that returns (B, T, V), each position's prediction of
            the token after it from those up to it; or what that method itself raises, asked about
            one token, because the model cannot do so as it is set.
    """
    if not isinstance(processor, TextProcessor):
        raise RecipeError(
            "recipe.processor",
            "makes no tokens, which language_modeling predicts",
            f"Choose a tokenizer, or remove {where.removeprefix('recipe.')}",
        )
    if not isinstance(model, TokenLogits):
        raise RecipeError(
            where,
            "is language_modeling, but the model predicts no tokens: it has no method token_logits",
            "Choose a causal model of tokens that has one, such as transformer_classifier, or"
            " remove the task",
        )
    # Asked once, because whether a model can depends on its settings: it must not look ahead.
    token = torch.zeros(1, 1, dtype=torch.int64, device=device_of(model))
    with evaluating(model):
        model.token_logits(tokens=token, lengths=torch.ones_like(token[0]))


def next_token_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Return the logits (M, V) of every token of the texts but the first.

    The model reads the texts once more for it: what it returns to other tasks is no prediction of
    tokens.
    """
    assert isinstance(model, TokenLogits)  # as check_token_model found
    logits: Tensor = model.token_logits(tokens=batch["tokens"], lengths=batch["lengths"])
    return logits[:, :-1][_trained(batch)]


def next_token_loss(logits: Tensor, batch: Batch) -> Loss:
    """Return the sum of -log p in nats of every token of the texts but the first, and how many
    there are, by their logits (M, V).

    Source:
        A language model's loss next to a classifier's: Radford et al., GPT, 2018, section 3.2,
        equation 5.
    """
    trained = _trained(batch)
    total = F.cross_entropy(logits.float(), batch["tokens"][:, 1:][trained], reduction="sum")
    return Loss({"next_token": Term(total, trained.sum())})


def count_next_tokens(batch: Batch) -> float:
    """Return how many tokens are predicted: all but each text's first."""
    return float(_trained(batch).sum())


def _trained(batch: Batch) -> Tensor:
    """Return (B, T - 1), whether the token after each position is within the text."""
    # The first token is read, and predicted from nothing: it is left out.
    places = torch.arange(1, batch["tokens"].shape[1], device=batch["tokens"].device)
    return places[None] < batch["lengths"][:, None]


def evaluate_next_tokens(
    model: nn.Module,
    examples: Sequence[Example],
    encode: Callable[[Sequence[Any]], Batch],
    processor: TextProcessor,
) -> dict[str, float]:
    """Return loss in nats a token, perplexity and bits per byte over held-out texts, as far as the
    task reads them."""
    sizes = torch.from_numpy(processor.token_bytes())
    total = count = 0.0
    size = 0
    with evaluating(model):
        for start in range(0, len(examples), _AT_ONCE):
            batch = encode([example.inputs for example in examples[start : start + _AT_ONCE]])
            size += int(sizes[batch["tokens"][:, 1:][_trained(batch)]].sum())
            batch = {key: value.to(device_of(model)) for key, value in batch.items()}
            term = next_token_loss(next_token_logits(model, batch), batch).terms["next_token"]
            total += float(term.total)
            count += float(term.count)
    mean = total / max(count, 1.0)
    found = {"loss": mean, "perplexity": perplexity(mean), "held_out_tokens": count}
    if size:  # all special tokens, or no texts: there are no bytes to divide by
        found["bits_per_byte"] = bits_per_byte(total, size)
    return found
