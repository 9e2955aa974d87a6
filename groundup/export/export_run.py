"""``groundup export``: a run's model for another tool, written only if that tool computes what was
trained."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup.core.errors import CheckpointError, RunError, did_you_mean
from groundup.export import ctranslate2, diffusers, onnx
from groundup.export.formats import DTYPES, EXPORTERS
from groundup.export.job import EXACT, Job
from groundup.export.samples import samples_of
from groundup.export.verify import Comparison, Model
from groundup.formats.llama_cpp import require_llama_cpp
from groundup.formats.transformers_library import require_transformers
from groundup.inference.predictor import Predictor
from groundup.inference.pretrained_run import open_run
from groundup.runs.run import Run
from groundup.training.build import assemble
from groundup.weights.initial_weights import weights_of
from groundup.weights.model_folder import model_card

__all__ = ["RECORD", "export_run"]

RECORD = "export.json"

log = logging.getLogger("groundup")


def export_run(
    folder: str | Path,
    to: str,
    *,
    dtype: str = "fp32",
    out: str | Path | None = None,
    checkpoint: str = "best",
    tolerance: float | None = None,
    prompts: int = 8,
    new_tokens: int = 16,
) -> Path:
    """Write a run's model for another tool, and return the folder; an adapter is merged.

    The files are opened again by that tool and by groundup, and their outputs compared with the
    trained model's on the run's own validation data. Only then does the folder get its name; what
    was compared is in its ``export.json``.

    Args:
        folder: The run's; or of pretrained weights, a GGUF file, or a name of the hub.
        to: ``"huggingface"``, ``"gguf"``, ``"onnx"``, ``"ctranslate2"`` or ``"diffusers"``.
        dtype: How weights are stored: ``fp32``, ``fp16``, ``bf16``; for GGUF also ``q8_0`` and
            ``q4_0``, for CTranslate2 ``int8``.
        out: The new folder; None: ``export/TO-DTYPE`` in the run's, NAME-TO-DTYPE of pretrained
            weights. An export that is there is
            replaced.
        checkpoint: ``"best"``, ``"last"`` or a step number.
        tolerance: The largest difference of two outputs that is allowed, over the largest output;
            None: 1e-4 in float32, 0.02 and 0.1 for what rounding to fp16 and bf16 changes.
        prompts: How many prompts language models are compared on.
        new_tokens: How many tokens are written after each.

    Raises:
        RunError: If there is no such run or format, ``out`` holds something else, or a number
            cannot be.
        MissingExtraError: If the other tool is not installed, which nothing could be compared with.
        CheckpointError: If the model has no place in that format, or what was written is not what
            was trained.
    """
    # first what costs nothing to find out: a model takes long to load
    _check_format(to, dtype)
    _check_numbers(tolerance, prompts, new_tokens)
    run = open_run(folder)
    place = run.folder / "export" / f"{to}-{dtype}"
    if run.is_pretrained:  # its folder is in the cache, where nobody would look
        place = Path(f"{run.recipe.name.rpartition('-')[0]}-{to}-{dtype}")
    target = Path(out or place)
    _check_target(target)
    step = run.pick(checkpoint)
    job, origin = _prepare_job(run, step, target, dtype, tolerance, (prompts, new_tokens))
    try:
        job.folder.mkdir(parents=True)
        if run.recipe.adapter is not None:
            unmerged = Model("the trained model", _load_unmerged(run, job.step))
            job.check(unmerged, job.merged, job.limit(EXACT))
        EXPORTERS[to](job)
        record = json.dumps(_make_record(job, to, origin), indent=1) + "\n"
        run.storage.write_text(job.folder / "README.md", model_card(run, job.step))
        run.storage.write_text(job.folder / RECORD, record)
        # only a whole and checked export takes the place of an older one
        run.storage.remove(target)
        run.storage.rename(job.folder, target)
    except OSError as error:
        problem = f"could not be written: {error.strerror or error}"
        remedy = "Free some space, or choose another --out, and try again"
        raise CheckpointError(str(target), problem, remedy) from error
    finally:
        run.storage.remove(job.folder)
    # what was compared is said only of an export that is there
    for found in job.comparisons:
        log.info("%s", _in_words(found))
    return target


def _check_target(target: Path) -> None:
    """Raise an error where something other than an export would be replaced."""
    if not target.exists() or (target / RECORD).is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise RunError(
            str(target),
            "exists, but is no export; nothing there was touched",
            "Choose another --out",
        )


def _prepare_job(
    run: Run, step: int, target: Path, dtype: str, tolerance: float | None, asked: tuple[int, int]
) -> tuple[Job, str]:
    """Return the job, and where its samples are from."""
    predictor = Predictor.load(run.folder, str(step))
    model = predictor.model.cpu().float()
    samples, origin = samples_of(run, model, predictor.processor, *asked)
    name = "the merged model" if run.recipe.adapter else "the trained model"
    job = Job(
        run=run,
        step=step,
        config=run.recipe.model,
        weights=weights_of(run, step),
        merged=Model(name, model),
        processor=predictor.processor,
        samples=samples,
        # next to the target: a rename across file systems would not be one step
        folder=target.with_name(f".{target.name}.{os.getpid()}"),
        target=target,
        dtype=dtype,
        tolerance=tolerance,
    )
    return job, origin


def _check_format(to: str, dtype: str) -> None:
    if to not in DTYPES:
        near = did_you_mean(to, DTYPES)
        raise RunError(
            "--to",
            f"{to!r} is no format; {near}allowed: {', '.join(DTYPES)}",
            "Choose one of these",
        )
    if dtype not in DTYPES[to]:
        near = did_you_mean(dtype, DTYPES[to])
        problem = f"{dtype!r} is not written to {to}; {near}allowed: {', '.join(DTYPES[to])}"
        raise RunError("--dtype", problem, "Choose one of these")
    require: dict[str, Callable[[], Any]] = {
        "huggingface": require_transformers,
        "gguf": require_llama_cpp,
        "onnx": onnx.require_onnx,
        "ctranslate2": ctranslate2.require_ctranslate2,
        "diffusers": diffusers.require_diffusers,
        # Safetensors and JSON, which are there.
        "vectors": lambda: None,
    }
    require[to]()


def _check_numbers(tolerance: float | None, prompts: int, new_tokens: int) -> None:
    """Raise an error for numbers with which nothing would be compared."""
    for name, number in (("prompts", prompts), ("new_tokens", new_tokens)):
        if number < 1:
            raise RunError(
                name, f"is {number}; allowed: 1 or more", "Without it nothing would be compared"
            )
    if tolerance is not None and not 0 <= tolerance < math.inf:
        remedy = "Leave it out for 1e-4 in fp32, and for what rounding changes otherwise"
        raise RunError("--tolerance", f"is {tolerance}; allowed: a number from 0 on", remedy)


def _load_unmerged(run: Run, step: int) -> nn.Module:
    """Return the model as the run holds it: the base's weights with the adapter next to them."""
    parts = assemble(run, torch.device("cpu"))
    checkpoint = run.checkpoints.load(step, with_optimizer=False)
    complete = parts.base.complete(checkpoint, parts.model, str(run.checkpoints.path(step)))
    parts.model.load_state_dict(complete.model)
    return parts.model


def _make_record(job: Job, to: str, origin: str) -> dict[str, Any]:
    return {
        "run": job.run.recipe.name,
        "step": job.step,
        "to": to,
        "dtype": job.dtype,
        "adapter_merged": job.run.recipe.adapter is not None,
        "samples": len(job.samples),
        "samples_from": origin,
        "comparisons": [found.to_json() for found in job.comparisons],
    }


def _in_words(found: Comparison) -> str:
    """Return a comparison as one line."""
    numbers = (
        f"max difference {found.max_difference:.2g} of {found.scale:.3g}, KL {found.kl_nats:.2g}"
        " nats"
    )
    agreed = f"{100 * found.agreement:.2f}% of {found.positions} likeliest outputs the same"
    return f"{found.other} against {found.reference}: {numbers}, {agreed}"
