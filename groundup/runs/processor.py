"""The processor of a run: fitted once, saved in its folder, and read from there ever after."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import platformdirs

from groundup.core import registry
from groundup.core.contracts.data import DataSource
from groundup.core.contracts.processors import LabelProcessor, Processor, ProcessorConfig
from groundup.core.error_location import encode_located
from groundup.core.errors import DataError, RunError
from groundup.core.values import Conversation, Example, Preference
from groundup.formats.huggingface_folder import find_pretrained, labels_in
from groundup.recipe.recipe import Recipe
from groundup.weights.gguf import read_gguf_processor

__all__ = ["add_files", "cache_folder", "load_processor", "make_processor"]


def cache_folder() -> Path:
    """Return where prepared data is kept between runs: $GROUNDUP_CACHE, or the user's cache
    folder."""
    return Path(os.environ.get("GROUNDUP_CACHE") or platformdirs.user_cache_dir("groundup"))


def add_files(digest: Any, folder: Path) -> None:
    """Make a digest depend on the names and contents of all files below a folder."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.name.encode() + path.read_bytes())


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
        raise RunError(
            str(path), "is damaged: it names no processor", "Restore it, or train the run again"
        ) from None
    return cast(type[ProcessorConfig], registry.lookup("processor", name, f"{path}: name")).load(
        folder
    )


def make_processor(recipe: Recipe, folder: Path) -> Processor:
    """Return the run's processor: the one saved in ``folder``, the base's, or one fitted now and
    saved there."""
    if not (folder / "processor.json").is_file():
        source = recipe.data

        def examples() -> Iterator[Any]:
            return iter(source.examples("train", cache_folder()))

        if recipe.init.run is not None:
            processor = load_processor(Path(recipe.init.run) / "processor")
        elif recipe.distill is not None and recipe.init.pretrained is None:
            processor = load_processor(Path(recipe.distill.teacher) / "processor")
        else:
            processor = _fitted(recipe, source, examples)
        processor = cast(Processor, recipe.task.fit_processor(processor, examples))
        _order_labels(processor, recipe)
        _check_classes(processor, source)
        folder.mkdir(parents=True, exist_ok=True)
        processor.save(folder)
    return load_processor(folder)


def _fitted(recipe: Recipe, source: DataSource, examples: Callable[[], Iterator[Any]]) -> Processor:
    """Return what the processor's section describes; with the path of the pretrained weights, what
    came with them."""
    config, name = recipe.processor, recipe.init.pretrained
    if name is not None and getattr(config, "path", None) == name:
        base = find_pretrained(name, recipe.init.revision)
        if base.is_gguf:
            return read_gguf_processor(base.folder, getattr(config, "end_token", None))
        config = _located(config, base.folder)
    return config.fit(lambda: _texts(source) if config.reads == "texts" else examples())


def _located(config: ProcessorConfig, folder: Path) -> ProcessorConfig:
    """Return the processor's section with the folder that its file is in."""
    if not (folder / "tokenizer.json").is_file():
        problem = "holds no tokenizer.json; a tokenizer.model or vocab.json alone is not read"
        remedy = (
            "Write one with transformers:"
            " AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
        raise DataError(
            str(folder),
            problem,
            f"{remedy}. Or name another: processor: {{name: tokenizer_json, path: ...}}",
        )
    return config.model_copy(update={"path": str(folder)})


def _order_labels(processor: Any, recipe: Recipe) -> None:
    """Number the classes as the pretrained weights do, where these tell the same ones apart: their
    head stays."""
    targets, name = processor.targets, recipe.init.pretrained
    if name is None or targets is None or targets.kind not in ("class", "classes"):
        return
    if recipe.task.orders_classes:  # from the lowest class to the highest
        return
    base = find_pretrained(name, recipe.init.revision)
    labels = () if base.is_gguf else labels_in(base.folder)
    if labels != targets.labels and sorted(labels) == sorted(targets.labels):
        processor.targets = targets.in_order(labels)


def _check_classes(processor: Processor, source: DataSource) -> None:
    """Raise an error for a class that only held-out examples have, before any time goes into
    training."""
    targets = processor.targets
    if targets is None or targets.kind not in ("class", "classes"):
        return

    def own(example: Any) -> Any:
        tokens = isinstance(processor, LabelProcessor) and processor.head == "tokens"
        return example.target if tokens else [example.target]

    for split in source.splits():
        if split != "train":
            found = list(source.examples(split, cache_folder()))
            encode_located(
                lambda some: targets.encode([label for example in some for label in own(example)]),
                found,
            )


def _texts(source: DataSource) -> Iterator[str]:
    for example in source.examples("train", cache_folder()):
        if isinstance(example, Conversation):
            yield from (message.content for message in example.messages)
        elif isinstance(example, Preference):
            yield from (
                message.content for turns in (example.prompt, *example.answers) for message in turns
            )
        else:
            inputs = example.inputs if isinstance(example, Example) else example.text
            yield from map(str, inputs if isinstance(inputs, tuple) else (inputs,))
