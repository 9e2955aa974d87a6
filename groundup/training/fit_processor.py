"""Fitting the processor of a run: once, from what the recipe says, the base or the teacher."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.contracts.data import BringsProcessor, HasTexts, LearnsFromSample, PreparesInParts
from groundup.contracts.processors import (
    AddsTokens,
    LabelProcessor,
    Processor,
    ProcessorConfig,
    ReadFromFiles,
)
from groundup.contracts.trained_models import TakesTrainedModel, TrainedModel
from groundup.core.error_location import encode_located
from groundup.core.errors import DataError, RecipeError
from groundup.formats.huggingface_folder import find_pretrained, labels_in
from groundup.recipe.recipe import Recipe, as_dict
from groundup.runs.processor import cache_folder, load_processor
from groundup.runs.run import Run
from groundup.weights.gguf import read_gguf_processor
from groundup.weights.initial_model import build_trained_model
from groundup.weights.trunk import trunk_of

__all__ = ["check_classes", "keep_processor", "kept_processor", "make_processor"]

log = logging.getLogger("groundup")

_CLASSES = ("class", "classes")  # kinds of targets that the training split must have all of


def make_processor(
    recipe: Recipe, folder: Path, instead: Callable[[], Iterator[Any]] | None = None
) -> Processor:
    """Return the run's processor: the one saved in ``folder``, the base's, or one fitted now and
    saved there.

    Args:
        recipe: The run's.
        folder: Where the processor is saved.
        instead: Gives examples that take the place of the data's, where a run has none.

    Raises:
        DataError: If it cannot be fitted to the data, or held-out examples have classes that no
            training example has.
    """
    if (folder / "processor.json").is_file():
        return load_processor(folder)
    if isinstance(recipe.data, BringsProcessor) and _is_own(recipe):
        return _take_over(recipe, recipe.data, folder)
    # Fitted before, when the data was prepared or looked at: of a large corpus that takes hours.
    if instead is None and (kept := _kept_before(recipe)) is not None and kept != folder:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        return load_processor(folder)
    source = recipe.data

    def examples() -> Iterator[Any]:
        return instead() if instead else iter(source.examples("train", cache_folder()))

    # Weights know tokens and classes by their numbers alone: another processor would shuffle them.
    # The same holds for what a teacher predicts.
    if recipe.init.run is not None and not _starts_with_a_trunk(recipe):
        processor = load_processor(Path(recipe.init.run) / "processor")
    elif recipe.distill is not None and recipe.init.pretrained is None:
        processor = load_processor(Path(recipe.distill.teacher) / "processor")
    else:
        processor = _fit(recipe, examples)
    processor = _add_tokens(recipe, processor)
    processor = recipe.task.fit_processor(processor, examples)
    _order_classes(processor, recipe)
    # Now, and not at the first validation: hours of training would be lost by then.
    for split in source.splits() if instead is None else ():
        # where there are no classes, a split of any size is not read
        if split != "train" and processor.targets is not None:
            check_classes(processor, list(source.examples(split, cache_folder())))
    folder.mkdir(parents=True, exist_ok=True)
    processor.save(folder)
    # Read back, so that the first run of a folder computes with what every later one will read.
    return load_processor(folder)


def keep_processor(recipe: Recipe) -> tuple[Processor, Path]:
    """Return the processor of a recipe and the folder in the cache that it is in, fitted if none
    was before."""
    # Fitting may take minutes.
    folder = kept_processor(recipe)
    return make_processor(recipe, folder), folder


def kept_processor(recipe: Recipe) -> Path:
    """Return the folder in the cache that a recipe's processor is kept in, under a name made of all
    that it depends on."""
    parts = [as_dict(recipe)[part] for part in ("data", "processor", "task", "init")]
    # The files may be others by now, under the same names.
    read = [(name, _stamp(content)) for name, content in recipe.data.contents().items()]
    key = hashlib.sha256(json.dumps([parts, read]).encode()).hexdigest()
    return cache_folder() / "inspected" / key[:16]


def _stamp(content: Path | str) -> str:
    if isinstance(content, str):
        return content
    if not content.exists():  # reading it says so in better words
        return ""
    status = content.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _kept_before(recipe: Recipe) -> Path | None:
    """Return the folder of a kept processor that is as one fitted now would be, if there is one."""
    # of other sources it depends on more than their files
    if not _is_own(recipe) or not isinstance(recipe.data, PreparesInParts):
        return None
    kept = kept_processor(recipe)
    return kept if (kept / "processor.json").is_file() else None


def _is_own(recipe: Recipe) -> bool:
    """Whether no other weights decide about the processor."""
    init = recipe.init
    return init.run is None and init.pretrained is None and recipe.distill is None


def _take_over(recipe: Recipe, source: BringsProcessor, folder: Path) -> Processor:
    """Save the processor that made the source's tokens as the run's.

    Raises:
        RecipeError: If the recipe names another kind.
    """
    kept = source.processor_folder(cache_folder())
    name = json.loads((kept / "processor.json").read_bytes())["name"]
    asked = recipe.processor.registered_name
    if name != asked:
        raise RecipeError(
            "recipe.processor",
            f"is {asked}, but the data's tokens were made by {name}",
            f"Write processor: {name}, whose tokens come with the data",
        )
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    return load_processor(folder)


def _starts_with_a_trunk(recipe: Recipe) -> bool:
    """Whether only the layers of another run are taken, which read pictures of any size, and know
    no classes."""
    base = Run.open(Path(str(recipe.init.run)))
    return trunk_of(recipe.model, base.recipe.model) is not None


def _fit(recipe: Recipe, examples: Callable[[], Iterator[Any]]) -> Processor:
    """Return what the processor's section describes; with the path of the pretrained weights, what
    came with them."""
    config = recipe.processor
    name = recipe.init.pretrained
    if name is not None and isinstance(config, ReadFromFiles) and config.path == name:
        base = find_pretrained(name, recipe.init.revision)
        if base.is_gguf:
            return read_gguf_processor(base.folder, config.end_token)
        # A hub's name is not a path: the file is in the folder that it was fetched to.
        config = _point_to(config, base.folder)
    if isinstance(config, TakesTrainedModel) and config.trained_run is not None:
        return config.fit_with(_trained_model(*config.trained_run), examples)
    if config.reads == "examples":
        return config.fit(examples)
    source = recipe.data
    if isinstance(config, LearnsFromSample) and isinstance(source, PreparesInParts):
        # of a corpus that was prepared in parts, nothing is read again
        drawn = source.drawn_texts(cache_folder(), config.sample_bytes)
        if drawn is not None:
            return config.fit(drawn)
    return config.fit(lambda: _texts(examples()))


def _trained_model(folder: str, checkpoint: str | int) -> TrainedModel:
    """Return what another run has learned, for a processor that takes it over."""
    # By its own recipe: this run's may have another model and another task.
    run = Run.open(Path(folder))
    processor = load_processor(run.folder / "processor")
    model = build_trained_model(run, run.pick(str(checkpoint)), processor)
    task = run.recipe.task.registered_name
    return TrainedModel(folder, task, run.recipe.model, model.eval(), processor)


def _add_tokens(recipe: Recipe, processor: Processor) -> Processor:
    """Return the processor with the tokens that the recipe adds; what there is to say of those that
    it had is logged.

    Raises:
        RecipeError: If it is no tokenizer, or one that takes no further tokens.
    """
    init = recipe.init
    added = {"add_tokens": init.add_tokens, "add_special_tokens": init.add_special_tokens}
    asked = [name for name, words in added.items() if words]
    if not asked:
        return processor
    reader = processor.reader
    if not isinstance(reader, AddsTokens):
        raise RecipeError(
            f"recipe.init.{asked[0]}",
            f"has no effect: {type(reader).__name__} has no vocabulary that words can be added to",
            "Remove it, or use a tokenizer: bpe or tokenizer_json",
        )
    found, notes = reader.with_added_tokens(init.add_tokens, init.add_special_tokens)
    for note in notes:
        log.warning("recipe.init: %s", note)
    if not isinstance(processor, LabelProcessor):
        return found
    # The base's own processor stays as it is: others may be made of it.
    with_targets = copy.copy(processor)
    with_targets.inputs = found
    return with_targets


def _texts(examples: Iterator[Any]) -> Iterator[str]:
    asked: type | None = None
    for example in examples:
        if type(example) is not asked:  # the answer takes as long as the texts themselves
            asked = type(example)
            _check_texts(example)
        yield from example.texts


def _check_texts(example: Any) -> None:
    if not isinstance(example, HasTexts):
        kind = type(example).__name__
        raise DataError(
            "recipe.processor",
            f"is fitted to texts, but the data gives examples of class {kind} without any",
            "Give that class a property texts, or choose a processor that reads its inputs",
        )


def _point_to(config: ProcessorConfig, folder: Path) -> ProcessorConfig:
    """Return the processor's section with the folder that its file is in."""
    if not (folder / "tokenizer.json").is_file():
        raise DataError(
            str(folder),
            "holds no tokenizer.json; a tokenizer.model or vocab.json alone is not read",
            "Write one with transformers:"
            " AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER). Or name another:"
            " processor: {name: tokenizer_json, path: ...}",
        )
    return config.model_copy(update={"path": str(folder)})


def _order_classes(processor: Processor, recipe: Recipe) -> None:
    """Number the classes as the pretrained weights do, where these tell the same ones apart: their
    head stays."""
    targets = processor.targets
    name = recipe.init.pretrained
    if name is None or targets is None or targets.kind not in _CLASSES:
        return
    # There the order means something, and the head has to follow it.
    if recipe.task.orders_classes:
        return
    base = find_pretrained(name, recipe.init.revision)
    labels = () if base.is_gguf else labels_in(base.folder)
    if labels != targets.labels and sorted(labels) == sorted(targets.labels):
        processor.targets = targets.in_order(labels)


def check_classes(processor: Processor, examples: Sequence[Any]) -> None:
    """Raise an error for a class that no training example has, naming the example.

    Raises:
        DataError: If there is one.
    """
    targets = processor.targets
    if targets is None or targets.kind not in _CLASSES:
        return
    of_tokens = isinstance(processor, LabelProcessor) and processor.head == "tokens"

    def encode(examples: Any) -> Any:
        found = [example.target for example in examples]
        if of_tokens:
            found = [label for labels in found for label in labels]
        return targets.encode(found)

    encode_located(encode, examples)
