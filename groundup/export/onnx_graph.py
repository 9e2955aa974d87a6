"""A run's model as one ONNX file, with what its users must know in it, checked against
onnxruntime."""

from __future__ import annotations

from typing import Any

from groundup.contracts.detection import DenseDetections
from groundup.contracts.generators import PictureGenerator
from groundup.contracts.pictures import DescribesPictures, PictureCodes
from groundup.contracts.processors import LabelProcessor
from groundup.export.detections import OUTPUTS, check_detections, find
from groundup.export.job import EXACT, Job
from groundup.export.onnx import FILE, OnnxRuntime, write_facts, write_graph
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
    write_graph(path, model, job.samples[0], sequences=sequences)
    write_facts(path, facts)
    # Of the numbers of a picture none is chosen.
    choices = not isinstance(model, PictureGenerator | PictureCodes)
    job.check(job.merged, OnnxRuntime(path, model), job.limit(EXACT, choices=choices))


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
