"""How a model is prepared to predict: the precision of its weights, and the quickest way to write
with them."""

from __future__ import annotations

import logging

import torch
from torch import nn

from groundup.contracts.models import SingleRowDecoding
from groundup.core.errors import RunError, did_you_mean
from groundup.nn.lowbit.int8 import quantise_layers, quickest_operator

__all__ = ["WEIGHTS", "check_weights", "quick", "set_weights"]

log = logging.getLogger("groundup")
WEIGHTS = ("fp32", "bf16", "int8")


def set_weights(model: nn.Module, weights: str, where: str) -> None:
    """Turn a model's weights, in place, into those that it predicts with.

    int8 keeps each row of every matrix as 8-bit integers and one scale, the embedding and the
    output layer included; norms and biases stay as they are. A token reads a quarter of the bytes
    of fp32.

    Args:
        model: With float32 weights.
        weights: ``fp32`` changes nothing; ``bf16`` or ``int8``.
        where: The run, for error messages.

    Raises:
        RunError: If there is no such precision, or the model does not write.
    """
    check_weights(weights)
    if weights == "fp32":
        return
    if not (isinstance(model, SingleRowDecoding) and model.has_decoder):
        problem = (
            f"weights {weights} are for the model gpt, and this one is a {type(model).__name__}"
        )
        raise RunError(where, problem, "Use weights fp32")
    before = _resident(model)
    if weights == "bf16":
        model.to(torch.bfloat16)
        how = "multiplied as they are"
    else:
        # Measured here: what is many times quicker on one processor is slower or missing on
        # another.
        operator, times = quickest_operator(next(model.parameters()).device)
        quantise_layers(model, operator, table="embed")
        how = f"multiplied by {operator}"
        how += (
            f" ({', '.join(f'{name} {ms:.2f} ms' for name, ms in times.items())} for 1024 x 1024)"
            if times
            else ""
        )
    log.info(
        "weights in %s: %.0f MB instead of %.0f MB, %s",
        weights,
        _resident(model) / 1e6,
        before / 1e6,
        how,
    )


def check_weights(weights: str) -> None:
    """Make sure that there is such a precision.

    Raises:
        RunError: If there is not.
    """
    if weights not in WEIGHTS:
        problem = (
            f"{weights!r} is no precision of weights; {did_you_mean(weights, WEIGHTS)}allowed:"
            " fp32, bf16, int8"
        )
        raise RunError("weights", problem, "Choose one of these")


def quick(model: nn.Module) -> nn.Module:
    """Return what writes most quickly with a model: on a CPU its own decoder if it has one,
    otherwise the model."""
    # For a single row, Python's overhead and the reading of weights are what counts on a CPU.
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    if on_cpu and isinstance(model, SingleRowDecoding) and model.has_decoder:
        return model.decoder()
    return model


def _resident(model: nn.Module) -> int:
    """Return the bytes of a model's tensors, those that several layers share counted once."""
    # Tied weights are two names of one memory.
    tensors = {
        tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())
    }
    return sum(tensors.values())
