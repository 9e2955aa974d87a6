"""``groundup export``: a run's model for another tool, written only if that tool computes what was
trained."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import InputProcessor, LabelProcessor, TextProcessor
from groundup.contracts.tasks import Chats
from groundup.core.errors import CheckpointError, RunError, did_you_mean
from groundup.core.values import Message
from groundup.export import gguf, huggingface, onnx
from groundup.export.samples import TEXTS, samples_of
from groundup.export.verify import (
    Comparison,
    Limit,
    Model,
    Reader,
    Sample,
    check_tensors,
    compare,
    compare_continuations,
    first_difference,
)
from groundup.formats.llama_cpp import require_llama_cpp
from groundup.formats.model_types import as_gguf
from groundup.formats.transformers_library import require_transformers
from groundup.inference.llama_cpp_parity import NEAR_BY_TABLE
from groundup.inference.predictor import Predictor
from groundup.nn.part_names import TASK_WEIGHTS
from groundup.runs.processor import load_processor
from groundup.runs.run import Run
from groundup.training.build import assemble
from groundup.weights.gguf import read_gguf_processor, rounded
from groundup.weights.initial_weights import weights_of
from groundup.weights.model_folder import model_card

__all__ = ["DTYPES", "RECORD", "export_run"]

RECORD = "export.json"
DTYPES = {"huggingface": ("fp32", "fp16", "bf16"), "gguf": tuple(gguf.KINDS), "onnx": ("fp32",)}
# the largest difference over the largest output, where both compute in float32
EXACT = 1e-4
# What rounding the weights may change, and what llama.cpp may, which rounds what goes into each
# product as well.
ROUNDING = {"fp32": EXACT, "fp16": 0.02, "bf16": 0.1}
# what changes where llama.cpp looks GELU up in a table of 16-bit numbers
TABLE = 2e-3
# Mean KL divergence of llama.cpp's quantised products from groundup's own with the same weights.
NATS = 0.02

log = logging.getLogger("groundup")


@dataclass
class _Job:
    """One export, and what was compared so far."""

    run: Run
    step: int
    config: ModelConfig
    weights: dict[str, Tensor]
    merged: Model
    processor: Any
    samples: list[Sample]
    folder: Path
    target: Path
    dtype: str
    tolerance: float | None
    comparisons: list[Comparison] = field(default_factory=list)

    def limit(self, difference: float | None, *, choices: bool = True) -> Limit:
        """Return a limit for outputs; the user's tolerance takes the place of ``difference``."""
        return Limit(difference if self.tolerance is None else self.tolerance, choices=choices)

    def check(self, reference: Reader, other: Reader, limit: Limit) -> None:
        """Check that two readers compute the same.

        Raises:
            CheckpointError: If they differ by more than the limit, naming the first layer that
                does.
        """
        found = compare(reference, other, self.samples, limit)
        if isinstance(other, gguf.LlamaCpp):
            texts = [other.continuation(sample) for sample in self.samples]
            compare_continuations(reference, texts, self.samples, found)
        self.comparisons.append(found)
        problem = found.problem()
        if problem is not None:
            layer = first_difference(reference, other, self.samples, limit.difference or EXACT)
            self.refuse(f"{other.name} {problem}; {layer}")

    def refuse(self, problem: str) -> None:
        """Raise an error that says what is wrong with the export."""
        remedy = (
            "Nothing was exported, and the run is as it was. If such a difference does no harm,"
            " allow it with --tolerance"
        )
        raise CheckpointError(str(self.target), problem, remedy)


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
        folder: The run's.
        to: ``"huggingface"``, ``"gguf"`` or ``"onnx"``.
        dtype: How weights are stored: ``fp32``, ``fp16``, ``bf16``; for GGUF also ``q8_0`` and
            ``q4_0``.
        out: The new folder; None: ``export/TO-DTYPE`` in the run's. An export that is there is
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
    run = Run.open(Path(folder))
    target = Path(out or run.folder / "export" / f"{to}-{dtype}")
    _check_target(target)
    step = run.pick(checkpoint)
    job, origin = _prepare_job(run, step, target, dtype, tolerance, (prompts, new_tokens))
    try:
        job.folder.mkdir(parents=True)
        if run.recipe.adapter is not None:
            unmerged = Model("the trained model", _load_unmerged(run, job.step))
            job.check(unmerged, job.merged, job.limit(EXACT))
        _EXPORTERS[to](job)
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
) -> tuple[_Job, str]:
    """Return the job, and where its samples are from."""
    predictor = Predictor.load(run.folder, str(step))
    model = predictor.model.cpu().float()
    samples, origin = samples_of(run, model, predictor.processor, *asked)
    name = "the merged model" if run.recipe.adapter else "the trained model"
    job = _Job(
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


# ------------------------------------------------------------------------------------------ formats
def _export_to_huggingface(job: _Job) -> None:
    huggingface.write_folder(job.run, job.folder, job.config, job.weights, job.dtype)
    own = huggingface.reload_folder(job.folder, type(job.config))
    _check_reload(job, own, huggingface.round_to(job.weights, job.dtype))
    hf = huggingface.Transformers(job.folder)
    job.check(own, hf, job.limit(EXACT))
    if (job.folder / "tokenizer.json").is_file():
        tokenizer = job.processor.reader
        _refuse_other_tokens(job, hf.name, hf.find_other_tokens(tokenizer, _choose_texts(job)))


def _export_to_gguf(job: _Job) -> None:
    path = job.folder / gguf.FILE
    gguf.write_file(path, job.config, job.weights, job.processor, job.dtype, job.run.recipe.name)
    own = gguf.reload_file(path)
    config = as_gguf(job.config)
    _check_reload(job, own, rounded(config, job.weights, gguf.KINDS[job.dtype]))
    # of the reload: the recipe's own may leave it to the data
    built: Any = own.module.config
    size = int(built.vocabulary_size)
    letter = int(job.processor.encode_batch(["a"])[0][0])
    context = config.llama_cpp_context(gguf.LONGEST)
    llama = gguf.LlamaCpp(path, size, context, letter, exact=job.dtype == "fp32")
    job.check(own, llama, _choose_llama_limit(job))
    read = read_gguf_processor(path)
    _refuse_other_tokens(job, own.name, _find_other_tokens(job, read))
    chats = _render_chats(job, llama.server.context)
    _refuse_other_tokens(job, llama.name, llama.find_other_tokens(read, _choose_texts(job), chats))


def _choose_llama_limit(job: _Job) -> Limit:
    """Return what llama.cpp may differ by."""
    if job.dtype.startswith("q"):
        return Limit(nats=job.tolerance or NATS, choices=False)
    exact = job.dtype == "fp32"
    if exact and as_gguf(job.config).gelu_from_table:
        return replace(job.limit(TABLE), near=NEAR_BY_TABLE)
    return job.limit(ROUNDING[job.dtype], choices=exact)


def _export_to_onnx(job: _Job) -> None:
    path = job.folder / onnx.FILE
    processor = job.processor
    text = isinstance(processor, TextProcessor)
    tokens = isinstance(processor, LabelProcessor) and bool(processor.vocabulary_size)
    frames = isinstance(processor, InputProcessor | LabelProcessor) and 0 in processor.input_shape
    onnx.write_graph(path, job.merged.module, job.samples[0], sequences=text or tokens or frames)
    job.processor.save(job.folder)
    job.check(job.merged, onnx.OnnxRuntime(path, job.merged.module), job.limit(EXACT))
    if text:
        read = load_processor(job.folder)
        name = "groundup's reload of the tokenizer"
        _refuse_other_tokens(job, name, _find_other_tokens(job, read))


_EXPORTERS: dict[str, Callable[[_Job], None]] = {
    "huggingface": _export_to_huggingface,
    "gguf": _export_to_gguf,
    "onnx": _export_to_onnx,
}


def _check_reload(job: _Job, own: Model, wanted: dict[str, Tensor]) -> None:
    """Check groundup's own reload against what was written, tensor by tensor, and against the
    merged model.

    Rounding to fewer than 16 bits is reported, not limited: what it costs depends on the model.
    """
    # what a task learned for its losses is no part of a model elsewhere
    kept = {name: tensor for name, tensor in wanted.items() if not name.startswith(TASK_WEIGHTS)}
    check_tensors(str(job.target), kept, own.module.state_dict())
    limit = Limit(choices=False)
    if job.dtype in ROUNDING:
        limit = job.limit(ROUNDING[job.dtype], choices=job.dtype == "fp32")
    job.check(job.merged, own, limit)


def _choose_texts(job: _Job) -> list[str]:
    """Return texts to compare tokenizers on: fixed ones, and what the prompts say."""
    prompts = [
        job.processor.decode(s.inputs["tokens"][0, : s.prompt].tolist())
        for s in job.samples[:2]
        if s.prompt
    ]
    # a prompt that was cut within a character has no text of its own
    return [*TEXTS, *(text for text in prompts if text.strip() and "\ufffd" not in text)]


def _render_chats(job: _Job, context: int) -> list[tuple[str, list[int]]]:
    """Return questions as the chat template of the run's task writes them, each with its tokens,
    where they fit."""
    task = job.run.recipe.task
    if job.processor.chat_template is None or not isinstance(task, Chats):
        return []
    template = task.chat_template(job.processor)
    asked = [(Message("user", text.strip()),) for text in TEXTS]
    chats = [(template.render(each, prompt=True), template.prompt(each).tolist()) for each in asked]
    return [(text, tokens) for text, tokens in chats if len(tokens) < context]


def _find_other_tokens(job: _Job, processor: Any) -> str | None:
    texts = _choose_texts(job)
    wanted = job.processor.encode_batch(texts)
    for text, one, two in zip(texts, wanted, processor.encode_batch(texts), strict=True):
        if one.tolist() != two.tolist():
            return text
    return None


def _refuse_other_tokens(job: _Job, name: str, text: str | None) -> None:
    if text is not None:
        job.refuse(f"{name} reads other tokens than the run's tokenizer in {text!r}")


def _make_record(job: _Job, to: str, origin: str) -> dict[str, Any]:
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
