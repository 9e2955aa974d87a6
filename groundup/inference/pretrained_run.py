"""Pretrained weights where a run is asked for: a folder in Hugging Face layout, a GGUF file, or a
name of the hub.

They are opened as a run that has made no step: its folder, in the cache, holds a recipe that starts
from the weights, and the processor; the weights stay where they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup.contracts.models import context_length_of
from groundup.contracts.processors import TextProcessor
from groundup.core import registry
from groundup.core.errors import CheckpointError, GroundupError, RunError
from groundup.core.settings import as_path
from groundup.core.storage import Storage
from groundup.core.values import Example
from groundup.formats.huggingface_folder import (
    Pretrained,
    find_pretrained,
    labels_in,
    read_config,
    weight_files,
)
from groundup.recipe.recipe import Recipe, load_recipe
from groundup.runs.processor import cache_folder
from groundup.runs.run import Run
from groundup.training.build import freeze
from groundup.training.fit_processor import make_processor
from groundup.weights.load import base_facts

__all__ = ["open_run"]

# Raise it when the same weights would be opened in another way.
_LAYOUT = 3
# The task of each head, by the end of the architecture's name in config.json.
_TASKS = {
    "ForSequenceClassification": "classify",
    "ForImageClassification": "classify",
    "ForTokenClassification": "token_classification",
    "ForQuestionAnswering": "extractive_qa",
    "ForMaskedLM": "masked_language_modeling",
    "ForPreTraining": "masked_language_modeling",
    "ForCausalLM": "language_modeling",
    "LMHeadModel": "language_modeling",
    "WhisperForConditionalGeneration": "transcribe",
}
_WRITES_ABOUT_INPUTS = ("ForConditionalGeneration", "MTModel")
_NO_DATA = "(no data)"
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")


def open_run(name: str | Path) -> Run:
    """Return the run in a folder; or one of pretrained weights, which has made no step.

    Raises:
        RunError: If it is neither, or the weights predict nothing.
        CheckpointError: If they cannot be read.
    """
    folder = as_path(name)
    if (folder / "recipe.yaml").is_file():
        return Run.open(folder)
    here = folder.suffix == ".gguf" or (folder / "config.json").is_file()
    if here:
        return _open_pretrained(find_pretrained(str(folder.absolute())))
    # A name of the hub, unless it looks like a run that is not there.
    text = str(name)
    looks_like_a_run = folder.exists() or (folder.parent != Path() and folder.parent.is_dir())
    if looks_like_a_run or text.startswith("runs/") or not _NAME.fullmatch(text):
        return Run.open(folder)
    try:
        base = find_pretrained(text)
    except GroundupError as error:
        if "/" in text:
            raise
        raise RunError(
            text, f"is not a run (it has no recipe.yaml), and {error.problem}", error.remedy
        ) from None
    return _open_pretrained(base)


def _open_pretrained(base: Pretrained) -> Run:
    where = cache_folder() / "pretrained"
    folder = where / _key_of(base)
    if not (folder / "recipe.yaml").is_file():
        recipe = _recipe_of(base, folder.name)
        # Under a name that nobody looks for: a run appears whole, by one rename.
        unfinished = folder.with_name(f".{folder.name}")
        storage = Storage()
        storage.remove(unfinished)
        try:
            processor = make_processor(recipe, unfinished / "processor", lambda: _examples(base))
            reader = processor.reader
            chats = isinstance(reader, TextProcessor) and reader.chat_template is not None
            if recipe.task.registered_name == "language_modeling" and chats:
                storage.remove(unfinished)
                recipe = _recipe_of(base, folder.name, "chat")
                make_processor(recipe, unfinished / "processor", lambda: _examples(base))
            facts = {**base_facts(recipe), "opened_as_pretrained": True}
            freeze(Run(unfinished, recipe, storage).restart(recipe, **facts))
            storage.remove(folder)
            storage.rename(unfinished, folder)
        finally:
            storage.remove(unfinished)
    return Run.open(folder)


def _key_of(base: Pretrained) -> str:
    """Return a name that changes when one of the files does, and begins with the weights' own."""
    files = [base.folder]
    if not base.is_gguf:
        files = sorted(path for path in base.folder.iterdir() if path.is_file())
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    digest = hashlib.sha256(f"{_LAYOUT} {base.name} {states}".encode()).hexdigest()[:12]
    stem = re.sub(r"[^\w.\-]+", "-", Path(base.name).name.removesuffix(".gguf")).strip("-.")
    return f"{stem or 'model'}-{digest}"


def _recipe_of(base: Pretrained, name: str, task: str | None = None) -> Recipe:
    """Return a recipe that starts from the weights, with the task of their head and no data."""
    section = {"name": task or "language_modeling"}
    if not base.is_gguf:
        weight_files(base.folder)  # before anything is computed: are there any?
        section = {"name": task} if task else _task_of(base)
    source = registry.lookup("task", section["name"]).file_source
    recipe = load_recipe(
        {
            "name": name,
            "about": f"The pretrained weights {base.name}, as they are",
            "task": section,
            "data": {"name": source, "path": _NO_DATA},
            "init": {"pretrained": base.name},
            "training": {"steps": 1, "batch_size": 1},
            # nothing is measured: it predicts, in float32
            "machine": {"precision": "fp32", "compile": False, "micro_batch_size": 1},
        }
    )
    # Texts are cut where the model's own context ends, and nowhere before; those that are read in
    # windows anyway are not.
    longest = context_length_of(recipe.model)
    settings = dict(recipe.task)
    if "max_tokens" not in settings or "stride" in settings or not longest:
        return recipe
    # Unless the folder says where: then texts are cut as they were in training.
    if "max_tokens" in recipe.task.model_fields_set:
        longest = min(longest, settings["max_tokens"])
    whole = recipe.task.model_copy(update={"max_tokens": longest})
    return recipe.model_copy(update={"task": whole})


def _task_of(base: Pretrained) -> dict[str, str]:
    """Return the task section for the head that config.json names."""
    config = read_config(base.folder)
    if (base.folder / "modules.json").is_file():
        return {"name": "sentence_embedding"}
    kinds = [str(kind) for kind in config.get("architectures") or []]
    tasks = [task for kind in kinds for end, task in _TASKS.items() if kind.endswith(end)]
    # The same ending is of models that read pictures or sounds, and go on from a prompt.
    if config.get("is_encoder_decoder"):
        tasks += ["text_to_text" for kind in kinds if kind.endswith(_WRITES_ABOUT_INPUTS)]
    if not tasks:
        raise RunError(
            str(base.folder / "config.json"),
            f"is {' and '.join(kinds) or 'without architectures'}, which predicts nothing yet",
            f"Train a task on it: init: {{pretrained: {base.name}}}",
        )
    if tasks[0] != "classify":
        return {"name": tasks[0]}
    if config.get("problem_type") == "regression" or len(labels_in(base.folder)) == 1:
        return {"name": "regression"}
    if config.get("problem_type") == "multi_label_classification":
        return {"name": "classify", "labels": "multi_label"}
    return {"name": "classify"}


def _examples(base: Pretrained) -> Iterator[Any]:
    """Yield what the processor is completed by in place of training examples: one of each class."""
    labels = () if base.is_gguf else labels_in(base.folder)
    task = {} if base.is_gguf else _task_of(base)
    if task.get("name") == "regression":
        # Of mean 0 and variance 1: what the head gives are the numbers themselves.
        yield from (Example(f"{n}", "", float(n)) for n in (-1, 1))
    elif task.get("name") == "token_classification":
        yield Example("0", tuple(labels), list(labels))
    elif task.get("labels") == "multi_label":
        yield Example("0", "", list(labels))
    else:
        if not labels and task.get("name") == "classify":
            raise CheckpointError(
                str(base.folder / "config.json"), "names no classes (id2label)", "Fetch it again"
            )
        yield from (Example(label, "", label) for label in labels)
