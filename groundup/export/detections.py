"""Detectors elsewhere: the probabilities and boxes that another program computes, compared with the
model's own.

Shape legend: B pictures, A points or queries, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groundup.contracts.detection import DenseDetections, SetDetections
from groundup.export.huggingface import Transformers
from groundup.export.job import Job
from groundup.export.onnx import OnnxRuntime, run_session
from groundup.export.verify import Limit, Model, Reader, Sample
from groundup.nn.box_head import from_centres
from groundup.nn.detections import read_detections

__all__ = ["OUTPUTS", "check_detections", "find"]

OUTPUTS = ("scores", "boxes")
_Detections = DenseDetections | SetDetections


@torch.no_grad()
def find(job: Job) -> DenseDetections | SetDetections | None:
    """Return what the run's model finds in the first sample; None where it is no detector."""
    found = job.merged.module(**job.samples[0].inputs)
    return found if isinstance(found, DenseDetections | SetDetections) else None


@torch.no_grad()
def _run(module: nn.Module, sample: Sample) -> _Detections:
    found = module(**sample.inputs)
    assert isinstance(found, DenseDetections | SetDetections)
    return found


class _Recorded(Reader):
    """One part of what a reader said of each sample."""

    def __init__(self, reader: Reader, part: str, said: dict[int, Tensor]) -> None:
        self.name = f"{reader.name} ({part})"
        self.reader = reader
        self.said = said

    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        """Return (B A, C) or (B A, 4)."""
        return self.said[id(sample)].flatten(0, 1)

    def layers(self, sample: Sample) -> dict[str, Tensor]:
        """Return what the reader's layers compute."""
        return self.reader.layers(sample)


def check_detections(job: Job, reference: Model, other: Reader, limit: Limit) -> None:
    """Check that a program says the same probabilities and boxes as a model, each by itself:
    of both together, boxes in pixels would hide any error of probabilities.

    Raises:
        CheckpointError: If it does not.
    """
    own_parts: tuple[dict[int, Tensor], ...] = ({}, {})
    other_parts: tuple[dict[int, Tensor], ...] = ({}, {})
    for sample in job.samples:
        found = _run(reference.module, sample)
        own = read_detections(found)
        two = _ask(other, sample, found)
        if isinstance(found, SetDetections) and two[0].shape == own[0].shape:
            two = _in_order(own, two)
        for one_said, two_said, one, its in zip(own_parts, other_parts, own, two, strict=True):
            one_said[id(sample)] = one
            two_said[id(sample)] = its
    for place, name in enumerate(OUTPUTS):
        # Of the four numbers of a box none is chosen.
        choices = limit.choices and name == "scores"
        job.check(
            _Recorded(reference, name, own_parts[place]),
            _Recorded(other, name, other_parts[place]),
            Limit(limit.difference, choices=choices),
        )


@torch.no_grad()
def _ask(other: Reader, sample: Sample, own: _Detections) -> tuple[Tensor, Tensor]:
    """Return what another program says, as ``read_detections`` has it."""
    if isinstance(other, OnnxRuntime):
        scores, boxes = run_session(other.session, sample.inputs, OUTPUTS)
        return scores, boxes
    if isinstance(other, Model):
        return read_detections(_run(other.module, sample))
    assert isinstance(other, Transformers)
    assert isinstance(own, SetDetections)
    masks = {"mask": "pixel_mask", "inputs": "pixel_values"}
    said = other.module(**{masks[name]: value for name, value in sample.inputs.items()})
    assert own.sizes is not None
    corners = None if own.corners is None else own.corners[:, None]
    boxes = from_centres(said.pred_boxes.float(), own.sizes[:, None], corners)
    return read_detections(SetDetections(said.logits.float(), boxes, nothing=own.nothing))


def _in_order(own: Sequence[Tensor], other: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return what another program says of its queries in the order of the model's own.

    Queries that are chosen by their scores are in the order of these, and where two are the same to
    the last digit, either may be first: their order means nothing.
    """
    whole = own[1].abs().max().clamp(min=1e-6)
    one, two = (torch.cat((scores, boxes / whole), -1) for scores, boxes in (own, other))
    nearest = torch.cdist(one, two).argmin(-1)  # (B, A)
    rows = []
    for places in nearest:
        # Queries that find the same thing may both be nearest to one of the other's.
        once = len(places.unique()) == len(places)
        rows.append(places if once else torch.arange(len(places)))
    index = torch.stack(rows)[..., None]
    scores, boxes = (part.gather(1, index.expand(-1, -1, part.shape[2])) for part in other)
    return scores, boxes
