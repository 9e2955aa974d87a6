"""From the sections of a recipe to live parts: processor, model, task and data.

Plugins are reached through the registry.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import platformdirs
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.core import devices, registry
from groundup.core.adaptation import HEADS, Frozen, adapt, starting_run, weights_of
from groundup.core.base_weights import pretrained_labels, pretrained_weights
from groundup.core.distillation import taught
from groundup.core.errors import CheckpointError, DataError, RunError
from groundup.core.finetuning import freeze_all_but
from groundup.core.interfaces import (
    Batch,
    DataContext,
    DataSource,
    ModelConfig,
    Processor,
    ProcessorConfig,
    Split,
    Stream,
    Task,
)
from groundup.core.locating import encode_located
from groundup.core.pretrained import find_pretrained
from groundup.core.quantised_base import announce, pretrained_model, quantise_layers
from groundup.core.recipe import Recipe
from groundup.core.records import Conversation, Example
from groundup.core.run import Run
from groundup.core.seeding import reseed

__all__ = [
    "Parts",
    "assemble",
    "cache_folder",
    "first_inputs",
    "freeze",
    "load_processor",
    "load_weights",
    "make_processor",
    "open_stream",
    "trained_model",
]

_COMPARED = 8  # examples that a teacher must read as the run does


@dataclass(frozen=True)
class Parts:
    """The live parts of a run."""

    model: nn.Module
    task: Task
    processor: Processor
    source: DataSource
    frozen: Frozen = field(default_factory=Frozen)


def cache_folder() -> Path:
    """Return where prepared data is kept between runs: $GROUNDUP_CACHE, or the user's cache folder."""
    return Path(os.environ.get("GROUNDUP_CACHE") or platformdirs.user_cache_dir("groundup"))


def load_processor(folder: Path) -> Processor:
    """Return the processor saved in a folder.

    Raises:
        RunError: If the folder holds none, or its processor.json is damaged.
    """
    path = folder / "processor.json"
    if not path.is_file():
        raise RunError(str(folder), "holds no processor.json", "Train the run first")
    try:
        name = str(json.loads(path.read_text(encoding="utf-8"))["name"])
    except (ValueError, KeyError, TypeError):
        raise RunError(str(path), "is damaged: it names no processor", "Restore it, or train the run again") from None
    return cast(type[ProcessorConfig], registry.lookup("processor", name, f"{path}: name")).load(folder)


def make_processor(recipe: Recipe, folder: Path) -> Processor:
    """Return the run's processor: the one saved in ``folder``, the base's, or one fitted now and saved there."""
    if not (folder / "processor.json").is_file():
        source = cast(DataSource, recipe.data)

        def examples() -> Iterator[Any]:
            return iter(source.examples("train", cache_folder()))

        if recipe.init.run is not None:
            processor = load_processor(Path(recipe.init.run) / "processor")
        elif recipe.distil is not None and recipe.init.pretrained is None:
            processor = load_processor(Path(recipe.distil.teacher) / "processor")
        else:
            config = _located(recipe)
            processor = config.fit(lambda: _texts(source) if config.reads == "texts" else examples())
        processor = cast(Processor, cast(Task, recipe.task).fit_processor(processor, examples))
        _check_classes(processor, source)
        folder.mkdir(parents=True, exist_ok=True)
        processor.save(folder)
    return load_processor(folder)


def _located(recipe: Recipe) -> ProcessorConfig:
    """Return the processor's section; where its path is the name of pretrained weights, with the folder they are in."""
    config, name = cast(ProcessorConfig, recipe.processor), recipe.init.pretrained
    if name is None or getattr(config, "path", None) != name:
        return config
    folder = find_pretrained(name, recipe.init.revision).folder
    if not (folder / "tokenizer.json").is_file():
        problem = "holds no tokenizer.json; a tokenizer.model or vocab.json alone is not read"
        remedy = "Write one with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        raise DataError(
            str(folder), problem, f"{remedy}. Or name another: processor: {{name: tokenizer_json, path: ...}}"
        )
    return config.model_copy(update={"path": str(folder)})


def _check_classes(processor: Processor, source: DataSource) -> None:
    """Raise an error for a class that only held-out examples have, before any time goes into training."""
    targets = getattr(processor, "targets", None)
    if targets is None or targets.kind not in ("class", "classes"):
        return

    def own(example: Any) -> Any:
        return example.target if getattr(processor, "head", None) == "tokens" else [example.target]

    for split in source.splits():
        if split != "train":
            found = list(source.examples(split, cache_folder()))
            encode_located(lambda some: targets.encode([label for example in some for label in own(example)]), found)


def freeze(run: Run) -> Run:
    """Settle what the recipe left open and write it down.

    That is the vocabulary, device, precision, compilation, threads and micro-batch. A recipe with nothing open is
    returned as it is, so that a resume never measures again.
    """
    recipe = run.recipe
    processor = make_processor(recipe, run.folder / "processor")
    model = cast(ModelConfig, recipe.model)
    if (recipe.init.run or recipe.init.pretrained) and "outputs" in type(model).model_fields:
        model = model.model_copy(update={"outputs": 0})  # this data may have other classes than the base's
    model = model.fit_to(processor)
    context = int(getattr(model, "context_length", 1))
    samples = recipe.budget.samples or (recipe.budget.steps or 0) * recipe.budget.batch_size
    sample_flops = context * model.flops_per_token(context)
    machine = devices.resolve(recipe.machine, recipe.budget.batch_size, sample_flops, samples)
    frozen = recipe.model_copy(update={"model": model, "machine": machine})
    if frozen != recipe:
        run.write_recipe(frozen)
    return Run(run.folder, frozen, run.storage)


def _texts(source: DataSource) -> Iterator[str]:
    for example in source.examples("train", cache_folder()):
        if isinstance(example, Conversation):
            yield from (message.content for message in example.messages)
        else:
            inputs = example.inputs if isinstance(example, Example) else example.text
            yield from map(str, inputs if isinstance(inputs, tuple) else (inputs,))


def assemble(run: Run, device: torch.device) -> Parts:
    """Return the parts of a run, the model with its starting weights: random, or those that ``init`` names, adapted.

    Pretrained ones are not read where a checkpoint of the run's own takes their place: their folder may be gone.
    """
    recipe = run.recipe
    processor = make_processor(recipe, run.folder / "processor")
    model, frozen = _starting_model(run, processor)
    if recipe.init.train_layers is not None:
        freeze_all_but(model, recipe.init.train_layers)
    dtype = torch.float64 if recipe.machine.precision == "fp64" else torch.float32
    if dtype == torch.float64:  # inputs are float32, whatever the weights are
        model.register_forward_pre_hook(_widened, with_kwargs=True)
    task, source = cast(Task, recipe.task), cast(DataSource, recipe.data)
    model = model.to(device, dtype)
    if recipe.distil is not None:
        starts = recipe.init.run is not None or recipe.init.pretrained is not None
        some = list(islice(source.examples("train", cache_folder()), _COMPARED)) if starts else []
        teachers = load_processor(Path(recipe.distil.teacher) / "processor")
        task, teacher = taught(model, run, processor, teachers, some)
        frozen = dataclasses.replace(frozen, teacher=teacher)
    return Parts(model, task, processor, source, frozen)


def trained_model(run: Run, step: int, processor: Processor) -> nn.Module:
    """Return the model of a checkpoint to predict with, in float32.

    An adapter comes merged into the weights of its base; beside one that is quantised it stays as it was trained.

    Raises:
        CheckpointError: If it is damaged, or an adapter for another base.
    """
    recipe, where = run.recipe, str(run.checkpoints.path(step))
    if recipe.adapter is not None and recipe.adapter.quantised:
        model, frozen = _starting_model(run, processor)
        weights = frozen.completed(run.checkpoints.load(step, with_optimizer=False), model, where).model
    else:
        model = cast(Task, recipe.task).wrap(cast(ModelConfig, recipe.model).build(), processor)
        weights = weights_of(run, step)
    load_weights(model, weights, where)
    return model


def _starting_model(run: Run, processor: Processor) -> tuple[nn.Module, Frozen]:
    recipe = run.recipe
    begins = run.checkpoints.newest_intact() is None
    quantised = recipe.adapter is not None and recipe.adapter.quantised != ""
    needed = recipe.init.pretrained is not None and (begins or recipe.adapter is not None)
    pretrained = pretrained_weights(run) if needed and not quantised else {}
    if needed and begins:
        run.event(0, f"{run.folder}: starts from the pretrained weights {recipe.init.pretrained}")
    reseed(recipe.seed, "initialise")
    model = pretrained_model(run) if needed and quantised else cast(ModelConfig, recipe.model).build()
    new_head = False
    if recipe.init.run is not None:
        base, step = starting_run(run)
        weights = weights_of(base, step)
        weights = {name: value for name, value in weights.items() if not name.startswith("task_weights.")}
        new_head = _new_head(base, processor)
        load_weights(model, weights, str(base.folder), new_head=new_head)
        if recipe.adapter is not None and quantised:
            quantise_layers(model, recipe.adapter, str(base.folder))
    if pretrained:
        new_head = _load_pretrained(model, pretrained, run, other=_other_labels(run, processor), say=begins)
    model = cast(Task, recipe.task).wrap(model, processor)
    frozen = adapt(model, run, new_head=new_head)
    if quantised and begins:
        announce(run, model)
    return model, frozen


def _widened(model: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def wide(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(wide, args)), {name: wide(value) for name, value in named.items()}


def _new_head(base: Run, processor: Processor) -> bool:
    """Whether other classes, or numbers, are predicted than the base run predicts."""
    own, before = (getattr(p, "targets", None) for p in (processor, load_processor(base.folder / "processor")))
    return own is not None and (before is None or (own.kind, own.labels) != (before.kind, before.labels))


def _other_labels(run: Run, processor: Processor) -> bool:
    """Whether other classes, or numbers, are predicted than the pretrained weights predict."""
    targets = getattr(processor, "targets", None)
    return targets is not None and targets.kind != "fixed" and targets.labels != pretrained_labels(run)


def _load_pretrained(model: nn.Module, weights: dict[str, Tensor], run: Run, *, other: bool, say: bool) -> bool:
    """Copy pretrained weights, and return whether a head, or a part of one, keeps its random numbers.

    That is what the weights lack, and the last layer where ``other`` classes are predicted than they were trained for.
    """
    own = model.state_dict()
    fresh = [name for name in own if name.startswith(HEADS) and name not in weights]
    if other:
        fresh = [name for name in own if name in fresh or name.startswith("head.")]
    if fresh and say:
        run.event(0, f"{run.folder}: new head, from random numbers: {', '.join(fresh)}")
    load_weights(model, {**weights, **{name: own[name] for name in fresh}}, str(run.recipe.init.pretrained))
    return bool(fresh)


def load_weights(model: nn.Module, weights: dict[str, Tensor], where: str, *, new_head: bool = False) -> None:
    """Copy weights by name, every one of them; with ``new_head`` all but those of modules called ``head``.

    Raises:
        CheckpointError: If a name or a shape does not fit; the message names the first.
    """
    own = model.state_dict()
    if new_head:
        weights = {name: value for name, value in weights.items() if not name.startswith(HEADS)}
        weights |= {name: value for name, value in own.items() if name.startswith(HEADS)}
    for name in [*own, *weights]:
        if name not in weights or name not in own:
            side = "lacks" if name not in weights else "has an unknown"
            raise CheckpointError(
                where, f"{side} tensor {name}", "Use the model section that these weights were trained with"
            )
        if own[name].shape != weights[name].shape:
            raise CheckpointError(
                where,
                f"tensor {name} has shape {list(weights[name].shape)}; the model needs {list(own[name].shape)}",
                "Use the model section that these weights were trained with",
            )
    model.load_state_dict(weights)


def open_stream(run: Run, parts: Parts, split: Split) -> Stream:
    """Return the micro-batches of a split as the run's recipe orders them."""
    recipe, task, processor = run.recipe, parts.task, parts.processor
    digest = hashlib.sha256(task.model_dump_json().encode() + task.registered_name.encode())
    for path in sorted(p for p in (run.folder / "processor").rglob("*") if p.is_file()):
        digest.update(path.name.encode() + path.read_bytes())

    def augment(batch: Batch, samples: NDArray[np.int64], partners: Callable[[], Batch]) -> Batch:
        return task.augment(batch, samples, partners, processor, recipe.seed if split == "train" else -1)

    changed = task.augments and (split == "train" or getattr(task, "augments_held_out", False))

    context = DataContext(
        split=split,
        encode=lambda examples: encode_located(lambda some: task.encode(some, processor), examples),
        encode_key=digest.hexdigest()[:16],
        end_id=int(getattr(processor, "end_id", 0)),
        sequence_length=int(getattr(recipe.model, "context_length", 0)),
        batch_size=recipe.budget.batch_size,
        micro_batch=cast(int, recipe.machine.micro_batch),
        seed=recipe.seed,
        cache=cache_folder(),
        workers=recipe.machine.workers if split == "train" else 0,
        augment=augment if changed else None,
    )
    return parts.source.open(context)


def first_inputs(run: Run, parts: Parts) -> Iterator[dict[str, Any]]:
    """Yield the model's inputs of the run's first training micro-batches, on its device: an epoch, at most 200."""
    device = next(parts.model.parameters()).device
    with contextlib.closing(open_stream(run, parts, "train")) as stream:
        number = math.ceil(stream.samples_per_epoch / cast(int, run.recipe.machine.micro_batch))
        for batch in islice(stream, min(number, 200)):
            yield parts.task.inputs({key: value.to(device) for key, value in batch.items()})
