"""An encoder-decoder as two ONNX files: one reads an input, the other writes a token more after
those that were written, whose keys and values it takes and returns.

Shape legend: P compared positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from groundup.export.onnx import export_graph, open_session, require_onnx, run_session
from groundup.export.verify import Reader, Sample
from groundup.nn.two_stack_graphs import DecoderGraph, EncoderGraph
from groundup.nn.two_stacks import TwoStackTransformer

__all__ = ["DECODER", "ENCODER", "OnnxTwoStacks", "write_graphs"]

ENCODER = "encoder.onnx"
DECODER = "decoder.onnx"
# Tokens of the input that graphs are traced with: no size of a model.
_SOURCE = 11


class _Ordered(nn.Module):
    """An ``EncoderGraph`` whose inputs and outputs are in a fixed order."""

    def __init__(self, encoder: EncoderGraph) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        source, mask = values
        return tuple(self.encoder(source=source, source_mask=mask).values())


def write_graphs(folder: Path, model: TwoStackTransformer) -> None:
    """Write both files; rows, the length of inputs and that of what is written are free.

    Args:
        folder: Exists.
        model: Of tokens, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If torch.export cannot trace the model.
    """
    name = type(model).__name__
    # Numbers that differ, and none of them 1: torch.export takes what is 1, or equal, for fixed.
    source = torch.zeros((3, _SOURCE), dtype=torch.int64)
    mask = torch.ones((3, _SOURCE), dtype=torch.bool)
    encoder = EncoderGraph(model)
    with torch.no_grad():
        read = encoder(source=source, source_mask=mask)
    names = [each.replace(" ", "_") for each in read]
    inputs = {"source": source, "source_mask": mask}
    free = {each: {0: "batch", 1: "source_length"} for each in inputs}
    kept = dict(zip(names, read.values(), strict=True))
    block = model.shape.block
    past = (3, block.kv_heads, 5, block.head_dim)
    written = _written(model.shape.decoder_layers)
    pasts = [f"past_{each}" for each in written]
    # Each a tensor of its own: torch.export takes one that is given twice for one input.
    given = {"tokens": source[:, :2], **kept, **{each: torch.zeros(past) for each in pasts}}
    shapes: dict[str, dict[int, str]] = {"tokens": {0: "batch", 1: "length"}}
    shapes |= {each: _free_of(value) for each, value in kept.items()}
    shapes |= {each: {0: "batch", 2: "past_length"} for each in pasts}
    outputs = ["logits", *(f"present_{each}" for each in written)]
    # As plain products: what other kernels return is laid out otherwise than what a graph computes.
    with sdpa_kernel(SDPBackend.MATH):
        export_graph(folder / ENCODER, _Ordered(encoder), inputs, free, names, name)
        graph = DecoderGraph(model, list(read))
        export_graph(folder / DECODER, graph, given, shapes, outputs, name)


def _free_of(value: Tensor) -> dict[int, str]:
    """Return the free dimensions of what was read of ``_SOURCE`` tokens."""
    places = [place for place, size in enumerate(value.shape) if size == _SOURCE]
    return {0: "batch", **dict.fromkeys(places, "source_length")}


def _written(layers: int) -> list[str]:
    return [f"{kind}_{layer}" for layer in range(layers) for kind in ("keys", "values")]


class OnnxTwoStacks(Reader):
    """Both files opened by onnxruntime."""

    def __init__(self, folder: Path, model: TwoStackTransformer) -> None:
        _, library = require_onnx()
        self.name = f"onnxruntime {library.__version__}"
        self.encoder = open_session(folder / ENCODER)
        self.decoder = open_session(folder / DECODER)
        block = model.shape.block
        self.empty = torch.zeros((1, block.kv_heads, 0, block.head_dim))
        self.written = _written(model.shape.decoder_layers)

    def _read(self, sample: Sample) -> dict[str, Tensor]:
        """Return what the decoder is given before its first token."""
        source = sample.inputs["source"]
        inputs = {"source": source, "source_mask": torch.ones_like(source, dtype=torch.bool)}
        names = [value.name for value in self.encoder.get_outputs()]
        kept = dict(zip(names, run_session(self.encoder, inputs, names), strict=True))
        return kept | dict.fromkeys((f"past_{name}" for name in self.written), self.empty)

    def _write(self, kept: dict[str, Tensor], tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logits (1, T, V) of new tokens (1, T), and what is given with the next."""
        names = ["logits", *(f"present_{name}" for name in self.written)]
        logits, *present = run_session(self.decoder, kept | {"tokens": tokens}, names)
        past = (f"past_{name}" for name in self.written)
        return logits, kept | dict(zip(past, present, strict=True))

    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        """Return (P, V), all tokens at once."""
        logits, _ = self._write(self._read(sample), sample.inputs["tokens"])
        return logits[0, list(positions)]

    def continuation(self, sample: Sample) -> list[int]:
        """Return the likeliest tokens one by one, as many as the sample has."""
        tokens = sample.inputs["tokens"]
        logits, kept = self._write(self._read(sample), tokens[:, : sample.prompt])
        found: list[int] = []
        while len(found) < tokens.shape[1] - sample.prompt:
            found.append(int(logits[0, -1].argmax()))
            logits, kept = self._write(kept, torch.tensor([[found[-1]]]))
        return found
