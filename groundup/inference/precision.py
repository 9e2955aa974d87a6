"""How a model is prepared to predict: the precision of its weights, and the quickest way to write
with them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from groundup.contracts.models import SingleRowDecoding
from groundup.core.errors import RunError, did_you_mean
from groundup.nn.lowbit.int4 import GROUP, Int4Weight
from groundup.nn.lowbit.int8 import (
    Int8Weight,
    quantize_layers,
    quickest_int4_operator,
    quickest_operator,
)

__all__ = ["WEIGHTS", "check_weights", "quick", "set_weights"]

log = logging.getLogger("groundup")
WEIGHTS = ("fp32", "bf16", "int8", "int4")


def set_weights(model: nn.Module, weights: str, where: str) -> None:
    """Turn a model's weights, in place, into those that it predicts with.

    int8 keeps each row of every matrix as 8-bit integers and one scale, the embedding and the
    output layer included; norms and biases stay as they are. A token reads a quarter of the bytes
    of fp32. int4 keeps the matrices of the blocks in 4 bits, with a scale and a middle for 32
    inputs; the embedding, the output layer, and matrices that groups of 32 do not fit are in int8.

    Args:
        model: With float32 weights.
        weights: ``fp32`` changes nothing; ``bf16``, ``int8`` or ``int4``.
        where: The run, for error messages.

    Raises:
        RunError: If there is no such precision, the model does not write, or int4 fits none of its
            matrices.
    """
    check_weights(weights)
    if weights == "fp32":
        return
    if not (isinstance(model, SingleRowDecoding) and model.has_decoder):
        raise RunError(
            where,
            f"weights {weights} are for the models gpt, encoder_decoder and whisper, but this"
            f" one is a {type(model).__name__}",
            "Use weights fp32",
        )
    before = _resident(model)
    if weights == "bf16":
        model.to(torch.bfloat16)
        how = "multiplied as they are"
    else:
        how = _quantize(model, weights, where)
    log.info(
        "weights in %s: %.0f MB instead of %.0f MB, %s",
        weights,
        _resident(model) / 1e6,
        before / 1e6,
        how,
    )


def _quantize(model: nn.Module, weights: str, where: str) -> str:
    """Turn a model's matrices into those of few bits, and return how they are multiplied."""
    # Measured here: what is many times quicker on one processor is slower or missing on another.
    device = next(model.parameters()).device
    operator, times = quickest_operator(device)
    how = _describe(operator, times)
    if weights == "int8":
        quantize_layers(model, operator, table="embed")
        return how
    narrow, narrow_times = quickest_int4_operator(device)
    found = quantize_layers(model, operator, table="embed", int4=narrow, wide=("head",))
    if not found[Int4Weight]:
        raise RunError(
            where,
            f"weights int4 keep {GROUP} inputs of a matrix in a group, but none of the"
            f" {found[Int8Weight]} matrices of this model has inputs in groups of {GROUP} and"
            " outputs in groups of 16",
            "Use weights int8",
        )
    if found[Int8Weight]:
        log.warning(
            "%d of %d matrices are kept in int8 instead of int4: their inputs are no multiple of"
            " %d, or their outputs none of 16",
            found[Int8Weight],
            sum(found.values()),
            GROUP,
        )
    return f"{_describe(narrow, narrow_times)}; the embedding and the output layer in int8, {how}"


def _describe(operator: str, times: Mapping[Any, float]) -> str:
    measured = ", ".join(f"{name} {ms:.2f} ms" for name, ms in times.items())
    return f"multiplied by {operator}" + (f" ({measured} for 1024 x 1024)" if times else "")


def check_weights(weights: str) -> None:
    """Make sure that there is such a precision.

    Raises:
        RunError: If there is not.
    """
    if weights not in WEIGHTS:
        raise RunError(
            "weights",
            f"{weights!r} is no precision of weights; {did_you_mean(weights, WEIGHTS)}allowed:"
            f" {', '.join(WEIGHTS)}",
            "Choose one of these",
        )


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
