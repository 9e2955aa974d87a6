"""Fitting the processor of a run: once, from what the recipe says, the base or the teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from groundup.contracts.data import DataSource, HasTexts
from groundup.contracts.processors import (
    LabelProcessor,
    Processor,
    ProcessorConfig,
    ReadFromFiles,
)
from groundup.core.error_location import encode_located
from groundup.core.errors import DataError
from groundup.formats.huggingface_folder import find_pretrained, labels_in
from groundup.recipe.recipe import Recipe
from groundup.runs.processor import cache_folder, load_processor
from groundup.weights.gguf import read_gguf_processor

__all__ = ["make_processor"]


_CLASSES = ("class", "classes")  # kinds of targets that the training split must have all of


def make_processor(recipe: Recipe, folder: Path) -> Processor:
    """Return the run's processor: the one saved in ``folder``, the base's, or one fitted now and
    saved there.

    Raises:
        DataError: If it cannot be fitted to the data, or held-out examples have classes that no
            training example has.
    """
    if (folder / "processor.json").is_file():
        return load_processor(folder)
    source = recipe.data

    def examples() -> Iterator[Any]:
        return iter(source.examples("train", cache_folder()))

    # Weights know tokens and classes by their numbers alone: another processor would shuffle them.
    # The same holds for what a teacher predicts.
    if recipe.init.run is not None:
        processor = load_processor(Path(recipe.init.run) / "processor")
    elif recipe.distill is not None and recipe.init.pretrained is None:
        processor = load_processor(Path(recipe.distill.teacher) / "processor")
    else:
        processor = _fit(recipe, examples)
    processor = recipe.task.fit_processor(processor, examples)
    _order_classes(processor, recipe)
    # Now, and not at the first validation: hours of training would be lost by then.
    _check_classes(processor, source)
    folder.mkdir(parents=True, exist_ok=True)
    processor.save(folder)
    # Read back, so that the first run of a folder computes with what every later one will read.
    return load_processor(folder)


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
    if config.reads == "examples":
        return config.fit(examples)
    return config.fit(lambda: _texts(examples()))


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
        problem = f"is fitted to texts, but the data gives examples of class {kind} without any"
        remedy = "Give that class a property texts, or choose a processor that reads its inputs"
        raise DataError("recipe.processor", problem, remedy)


def _point_to(config: ProcessorConfig, folder: Path) -> ProcessorConfig:
    """Return the processor's section with the folder that its file is in."""
    if not (folder / "tokenizer.json").is_file():
        problem = "holds no tokenizer.json; a tokenizer.model or vocab.json alone is not read"
        remedy = (
            "Write one with transformers:"
            " AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER). Or name another:"
            " processor: {name: tokenizer_json, path: ...}"
        )
        raise DataError(str(folder), problem, remedy)
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


def _check_classes(processor: Processor, source: DataSource) -> None:
    """Raise an error for a class that only held-out examples have, before any time goes into
    training."""
    targets = processor.targets
    if targets is None or targets.kind not in _CLASSES:
        return
    of_tokens = isinstance(processor, LabelProcessor) and processor.head == "tokens"

    def encode(examples: Any) -> Any:
        found = [example.target for example in examples]
        if of_tokens:
            found = [label for labels in found for label in labels]
        return targets.encode(found)

    for split in source.splits():
        if split != "train":
            encode_located(encode, list(source.examples(split, cache_folder())))
