"""A run's model as one ONNX file, with what its users must know in it, checked against
onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.detection import DenseDetections
from groundup.contracts.generators import PictureGenerator
from groundup.contracts.pictures import DescribesPictures, PictureCodes
from groundup.contracts.processors import LabelProcessor
from groundup.export.detections import OUTPUTS, check_detections, find
from groundup.export.job import EXACT, Job
from groundup.export.onnx import (
    FILE,
    OnnxRuntime,
    export_graph,
    open_session,
    require_onnx,
    run_session,
    write_facts,
    write_graph,
)
from groundup.export.onnx_two_stacks import DECODER, ENCODER
from groundup.export.verify import Reader, Sample
from groundup.nn.detections import read_detections

__all__ = ["write_and_check"]

_SAID = {
    "scores": "(batch, places, classes) probabilities of each class by itself, in the order of"
    " `classes`",
    "boxes": "(batch, places, 4) left, top, right, bottom in pixels of the input tensor",
}


def write_and_check(job: Job, *, sequences: bool) -> None:
    """Write the graph into the job's folder, and compare what onnxruntime makes of it.

    Args:
        job: The export.
        sequences: Whether the second dimension of inputs is a length.

    Raises:
        CheckpointError: If the model is no graph, or another is computed.
    """
    path = job.folder / FILE
    model = job.merged.module
    facts = _facts(job)
    found = find(job)
    if found is not None:
        # Each query finds a thing of its own; of points several see the same one.
        facts |= {"outputs": _SAID, "needs_nms": isinstance(found, DenseDetections)}
        write_graph(
            path,
            model,
            job.samples[0],
            sequences=False,
            outputs=OUTPUTS,
            read=read_detections,
        )
        write_facts(path, facts)
        check_detections(job, job.merged, OnnxRuntime(path, model), job.limit(EXACT))
        return
    if isinstance(model, PictureCodes):
        _write_coder(job, model, facts)
        return
    write_graph(path, model, job.samples[0], sequences=sequences)
    write_facts(path, facts)
    # Of the numbers of a picture none is chosen.
    choices = not isinstance(model, PictureGenerator)
    job.check(job.merged, OnnxRuntime(path, model), job.limit(EXACT, choices=choices))


class _Half(nn.Module):
    """One way through a model that makes codes: to them, or back."""

    def __init__(self, model: nn.Module, way: str) -> None:
        super().__init__()
        self.model: Any = model
        self.way = way

    def forward(self, *values: Tensor) -> Tensor:
        """Return (B, R, S) codes of pictures, or (B, C, H, W) pictures of codes."""
        found: Tensor
        if self.way == "codes":
            found = self.model.codes(values[0])
        else:
            found = self.model.from_codes(values[0])
        return found


class _Coder(Reader):
    """Both ways, one after the other, by onnxruntime."""

    def __init__(self, job: Job) -> None:
        _, library = require_onnx()
        self.name = f"onnxruntime {library.__version__}"
        self.encoder = open_session(job.folder / ENCODER)
        self.decoder = open_session(job.folder / DECODER)

    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        """Return (B, C H W), the pictures drawn again."""
        (codes,) = run_session(self.encoder, sample.inputs, ["codes"])
        (found,) = run_session(self.decoder, {"codes": codes}, ["outputs"])
        return found.flatten(1)


def _write_coder(job: Job, model: PictureCodes, facts: dict[str, Any]) -> None:
    """Write the way to codes and the way back as a graph each, and compare what both make of
    pictures with what the model draws again."""
    inputs = job.samples[0].inputs["inputs"]
    inputs = torch.cat([inputs, inputs])[:3]
    facts = facts | {"codebook_size": model.codebook_size, "grid": list(model.grid)}
    module = job.merged.module
    name = type(module).__name__
    with torch.no_grad():
        codes = model.codes(inputs)
    for file, key, value, way in (
        (ENCODER, "inputs", inputs, "codes"),
        (DECODER, "codes", codes, "outputs"),
    ):
        export_graph(
            job.folder / file, _Half(module, way), {key: value}, {key: {0: "batch"}}, [way], name
        )
        write_facts(job.folder / file, facts)
    job.check(job.merged, _Coder(job), job.limit(EXACT, choices=False))


def _facts(job: Job) -> dict[str, Any]:
    """Return what a program must know to use the graph, as values of JSON."""
    task = job.run.recipe.task
    found: dict[str, Any] = {
        "task": {"name": task.registered_name, **task.model_dump(mode="json")},
        "model": job.config.registered_name,
    }
    processor = job.processor
    if isinstance(processor, LabelProcessor) and processor.labels:
        found["classes"] = list(processor.labels)
    reader = processor.reader
    if isinstance(reader, DescribesPictures):
        found["inputs"] = reader.describe()
    return found
