"""A U-Net that makes pictures, in diffusers' layout, and diffusers as its reader."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.contracts.generators import WritesDiffusers
from groundup.core.errors import CheckpointError, MissingExtraError
from groundup.export.job import Job
from groundup.export.verify import Reader, Sample

__all__ = ["Diffusers", "require_diffusers", "write_diffusers_folder"]

_WEIGHTS = "diffusion_pytorch_model.safetensors"


def require_diffusers() -> Any:
    """Return the library.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        return importlib.import_module("diffusers")
    except ImportError:
        raise MissingExtraError("diffusers", "diffusers") from None


def write_diffusers_folder(job: Job) -> None:
    """Write config.json and the weights, as ``UNet2DModel.from_pretrained`` reads them.

    Raises:
        CheckpointError: If the model has no place in that layout.
    """
    from safetensors.torch import save_file

    if not isinstance(job.config, WritesDiffusers):
        problem = f"model {job.config.registered_name} has no layout of diffusers"
        raise CheckpointError("model", problem, "Export a unet, or to onnx")
    # The weights of the job are those that were averaged, as predictions take them.
    config, tensors = job.config.to_diffusers(job.weights)
    text = json.dumps(config, indent=1) + "\n"
    job.run.storage.write_text(job.folder / "config.json", text)
    save_file(tensors, job.folder / _WEIGHTS, metadata={"format": "pt"})
    # Not next to config.json: diffusers would take its files for its own.
    processor = job.folder / "processor"
    processor.mkdir()
    job.processor.save(processor)


class Diffusers(Reader):
    """A folder opened by diffusers."""

    def __init__(self, folder: Path) -> None:
        library = require_diffusers()
        self.name = f"diffusers {library.__version__}"
        self.module: Any = library.UNet2DModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        """Return (B, C H W). Its times go to 1,000."""
        told = sample.inputs
        # Without spans: that library has no steps of a given length.
        classes = told.get("classes")
        found = self.module(told["inputs"], 1000.0 * told["times"], class_labels=classes)
        return found.sample.float().flatten(1)  # type: ignore[no-any-return]
