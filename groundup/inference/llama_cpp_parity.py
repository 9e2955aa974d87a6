"""Another engine's writing, checked against what groundup's own model computes with the same stored
weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.core.errors import CheckpointError
from groundup.formats.gguf_blocks import KINDS, dequantize
from groundup.formats.gguf_writer import quantize
from groundup.generation.decoding import Engine
from groundup.generation.options import DecodingOptions
from groundup.weights.gguf import model_in

__all__ = ["NEAR", "NEAR_BY_TABLE", "PROMPTS", "check_tokens"]

PROMPTS = (
    "The capital of France is",
    "北京是中国的首都，",
)  # of the second some tokens are no whole character
NEAR = (
    1e-3  # how far apart two logits may be and change places, where both engines compute in float32
)
NEAR_BY_TABLE = 0.02  # the same where llama.cpp looks GELU up in a table of 16-bit numbers
_TOKENS = 32  # after each prompt
_DEVIATIONS = 4  # of the difference of two logits; by chance one difference in 15,000 is larger


def check_tokens(
    engine: Engine, path: Path, processor: Any, kind: str, near: float = NEAR
) -> dict[str, Any]:
    """Make sure that an engine takes the tokens that groundup's own model takes, greedily, with the
    weights in a file.

    Every token that the engine writes after two prompts must be the one with groundup's best logit,
    or its logit at most the tolerance behind. The engine may round what goes into a product to the
    kind of number that the weights are stored in, as llama.cpp does. Then groundup's logits are
    computed again with such rounding, and the tolerance is four standard deviations of the
    difference of two logits that each err as much as groundup's do by it. In float32 nothing is
    rounded, and it is ``near``.

    Args:
        engine: What writes.
        path: The file.
        processor: The run's.
        kind: Of the matrices in the file: F32, BF16 or Q8_0.
        near: The least tolerance.

    Returns:
        ``tokens`` compared, how many are the ``same``, how far ``behind`` the others are at most,
        and ``tolerance``.

    Raises:
        CheckpointError: Saying where they part.
    """
    model = model_in(path)
    asked = [_beginning(text, processor, engine.config.context_length) for text in PROMPTS]
    written = [
        [
            token
            for step in engine.generate([tokens], DecodingOptions(max_new_tokens=n, temperature=0))
            if (token := step[0]) is not None
        ]
        for tokens, n in asked
    ]
    size = engine.config.vocabulary_size
    logits = [
        _logits(model, tokens, text, size) for (tokens, _), text in zip(asked, written, strict=True)
    ]
    tolerance = near
    if kind != "F32":
        with _rounded_activations(model, kind):
            again = [
                _logits(model, tokens, text, size)
                for (tokens, _), text in zip(asked, written, strict=True)
            ]
        error = torch.cat(again) - torch.cat(logits)
        # Without the mean, because what is added to all logits of a row changes no choice.
        deviation = float((error - error.mean(-1, keepdim=True)).square().mean().sqrt())
        tolerance = max(near, _DEVIATIONS * 2**0.5 * deviation)
    behind = [
        own.amax(-1) - own[range(len(text)), text]
        for own, text in zip(logits, written, strict=True)
    ]
    for prompt, text, own, each in zip(PROMPTS, written, logits, behind, strict=True):
        wrong = (~(each <= tolerance)).nonzero()  # the negation, so that NaN is wrong too
        if len(wrong):
            place = int(wrong[0])
            best = int(own[place].argmax())
            token = text[place]
            raise CheckpointError(
                str(path),
                f"takes token {token} {processor.decode([token])!r} as number {place + 1} after"
                f" {prompt!r}, but groundup's own model with the same weights {best}"
                f" {processor.decode([best])!r}, whose logit is {float(each[place]):.3g} higher"
                f" (allowed: {tolerance:.2g})",
                "Use the engine groundup",
            )
    every = torch.cat(behind)
    same = int((every == 0).sum())
    far = float(every.max())
    return {"tokens": len(every), "same": same, "behind": far, "tolerance": tolerance}


def _beginning(text: str, processor: Any, length: int) -> tuple[list[int], int]:
    """Return a prompt's tokens and how many are to be written, which a short context has fewer
    of."""
    tokens = processor.encode_batch([text])[0].tolist()[: max(1, length // 2)] or [processor.end_id]
    return tokens, min(_TOKENS, length - len(tokens) + 1)


@torch.no_grad()
def _logits(model: nn.Module, prompt: list[int], written: list[int], size: int) -> Tensor:
    """Return (N, V), from which each of the N tokens written after a prompt was taken."""
    # The last token written is only predicted: nothing was written after it.
    found: Tensor = model(torch.tensor([[*prompt, *written[:-1]]]))
    return found[0, len(prompt) - 1 :, :size].float()


@contextmanager
def _rounded_activations(model: Any, kind: str) -> Iterator[None]:
    """Let the model round what goes into each product with a matrix as numbers of this kind."""

    def rounded(x: Tensor) -> Tensor:
        numbers = x.reshape(-1, KINDS[kind].values).numpy()
        return torch.from_numpy(dequantize(quantize(numbers, KINDS[kind]), KINDS[kind])).view(
            x.shape
        )

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (rounded(inputs[0]), *inputs[1:])

    def after(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return rounded(output)

    layers = [layer for layer in model.blocks.modules() if isinstance(layer, nn.Linear)]
    hooks: list[Any] = [layer.register_forward_pre_hook(before) for layer in layers]
    hooks.append(
        model.norm.register_forward_hook(after)
    )  # the output layer may be the embedding, which is no layer
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
