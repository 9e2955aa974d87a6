"""``model/`` in a run's folder: the trained model as other tools expect one, with a model card
written from the run.

The layout is Hugging Face's: config.json, model.safetensors, the tokenizer's files, README.md.
Where the library ``transformers`` knows the architecture, it opens the folder and computes the same
logits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save
from torch import Tensor

from groundup.contracts.detection import OwnPictureClass
from groundup.contracts.models import FromHuggingFace
from groundup.contracts.processors import InputProcessor, LabelProcessor, Processor, TextProcessor
from groundup.contracts.speech import ReadsSpeech
from groundup.contracts.tasks import ReadsModelFolder
from groundup.contracts.two_tokenizers import HasTwoTokenizers
from groundup.core.errors import CheckpointError
from groundup.formats.generation_config import NAME as GENERATION
from groundup.formats.generation_config import describe_generation
from groundup.recipe.recipe import dump_recipe
from groundup.runs.processor import load_processor
from groundup.runs.run import Run
from groundup.weights.adapter_runs import base_reference
from groundup.weights.initial_weights import weights_of
from groundup.weights.write_peft import write_adapter_folder

__all__ = ["WEIGHTS", "fill_model_folder", "model_card", "write_model_card", "write_model_folder"]

WEIGHTS = "model.safetensors"


def write_model_folder(run: Run) -> Path:
    """Write the weights of the run's best checkpoint to ``model/``, replacing what was there, and
    return the folder.

    An adapter that the run trained is merged into them; it is also written alone, to ``adapter/``.

    A model that ``transformers`` has no name for keeps its own names, and its config.json says so.
    The weights come last: a folder that has them is whole.

    Raises:
        CheckpointError: If it could not be written, as on a full disk.
    """
    folder = run.folder / "model"
    step = run.pick("best")
    config = run.recipe.model
    weights = weights_of(run, step)
    try:
        values, tensors = config.to_huggingface(weights)
    except CheckpointError:
        values = {"model_type": f"groundup_{config.registered_name}", **config.model_dump()}
        tensors = weights
    try:
        folder.mkdir(exist_ok=True)
        # Card and adapter first: that the weights are there is taken to mean that all of it is.
        write_model_card(run)
        _write_adapter(run, step, weights)
        fill_model_folder(run, folder, values, tensors)
    except OSError as error:
        raise CheckpointError(
            str(folder),
            f"could not be written: {error.strerror or error}; the run's checkpoints are untouched",
            "Free some space and start the same command again",
        ) from error
    return folder


def fill_model_folder(
    run: Run,
    folder: Path,
    values: dict[str, Any],
    tensors: dict[str, Tensor],
    dtype: str = "float32",
) -> None:
    """Write config.json, the processor's files and, last, the weights in their own dtype.

    Args:
        run: Whose processor.
        folder: Where to; it exists.
        values: Of config.json.
        tensors: By the names that belong to it.
        dtype: What config.json says of them.

    Raises:
        OSError: If the disk is full.
    """
    processor = load_processor(run.folder / "processor")
    processor.save(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):  # where other tools look for them
        # Below the processor of labels, or of speech.
        for inner in ("inputs", "tokenizer"):
            if (folder / inner / name).is_file():
                text = (folder / inner / name).read_text(encoding="utf-8")
                run.storage.write_text(folder / name, text)
    values, tensors = _answering(values, tensors, processor)
    values = values | {"dtype": dtype} | _token_ids(processor)
    if "num_labels" in values:
        values |= _labels(processor)
    run.storage.write_text(folder / "config.json", json.dumps(values, indent=1) + "\n")
    files: dict[str, Any] = {}
    if "architectures" in values and isinstance(run.recipe.task, ReadsModelFolder):
        files = run.recipe.task.model_files(values, processor)
    _write_generation(run, folder, processor, files.pop(GENERATION, {}))
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        run.storage.write_text(folder / name, json.dumps(content, indent=1) + "\n")
    _write_picture_settings(run, folder, processor, values)
    # Weights last, by one rename: a folder that has them is whole.
    temporary = folder / ".model.safetensors"
    run.storage.write_bytes(temporary, save(tensors, metadata={"format": "pt"}))
    run.storage.rename(temporary, folder / WEIGHTS)


def _tokenizer_of(processor: Processor) -> TextProcessor | None:
    """Return what makes the tokens that a model writes."""
    if isinstance(processor, TextProcessor):
        return processor
    if isinstance(processor, HasTwoTokenizers):
        return processor.target
    # What adds labels to a tokenizer has one too, but its models write no text.
    if isinstance(processor, LabelProcessor) or not isinstance(processor, ReadsSpeech):
        return None
    return processor.tokenizer


def _token_ids(processor: Any) -> dict[str, int]:
    """Return the tokens that start and end a text, as config.json has them."""
    tokenizer = _tokenizer_of(processor)
    if tokenizer is None:
        return {}
    end = tokenizer.end_id
    # Without a token of its own, a text begins with the one that ends the text before.
    begin = tokenizer.special_id(tokenizer.start_token or "")
    return {"bos_token_id": end if begin is None else begin, "eos_token_id": end}


def _answering(
    values: dict[str, Any], tensors: dict[str, Tensor], processor: Any
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config.json and tensors of what marks an answer's first and last token by the names of
    such models."""
    kind = (values.get("architectures") or [""])[0]
    suffix = "ForTokenClassification"
    targets = processor.targets
    if (
        targets is None
        or (targets.kind, targets.labels) != ("fixed", ("start", "end"))
        or not kind.endswith(suffix)
    ):
        return values, tensors
    kept = {key: value for key, value in values.items() if key != "num_labels"}
    kept["architectures"] = [f"{kind.removesuffix(suffix)}ForQuestionAnswering"]
    return kept, {
        name.replace("classifier.", "qa_outputs."): tensor for name, tensor in tensors.items()
    }


def _labels(processor: Any) -> dict[str, Any]:
    """Return the classes' names, as config.json has them."""
    labels = processor.targets.labels
    names = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: n for n, label in enumerate(labels)},
    }
    return names if labels else {}


def _write_picture_settings(run: Run, folder: Path, processor: Any, values: dict[str, Any]) -> None:
    """Write how pictures are prepared to preprocessor_config.json, for a model that
    ``transformers`` knows."""
    reader = processor.reader
    # A model that transformers does not open has no use for its way to prepare pictures.
    if "architectures" not in values or not isinstance(reader, InputProcessor):
        return
    if (found := reader.to_huggingface()) is not None:
        if isinstance(run.recipe.model, OwnPictureClass):
            found = run.recipe.model.processor_to_huggingface(found)
        run.storage.write_text(
            folder / "preprocessor_config.json", json.dumps(found, indent=1) + "\n"
        )


def _write_generation(
    run: Run, folder: Path, processor: Processor, of_task: Mapping[str, Any]
) -> None:
    """Write which tokens end a text and how the next one is chosen, where config.json has no place
    for it, and what the task says."""
    # Runs of before it was read have no such entry.
    decoding = (run.read_json("environment.json") or {}).get("decoding") or {}
    model = run.recipe.model
    own = model.to_generation_config() if isinstance(model, FromHuggingFace) else {}
    own = own | dict(of_task)
    tokenizer = _tokenizer_of(processor)
    if tokenizer is None or not (tokenizer.other_ends or decoding or own):
        return
    begin = _token_ids(processor)["bos_token_id"]
    values = describe_generation(begin, tokenizer.end_ids, decoding) | own
    run.storage.write_text(folder / GENERATION, json.dumps(values, indent=1) + "\n")


def _write_adapter(run: Run, step: int, weights: dict[str, Tensor]) -> None:
    """Write the adapter of a run that trained one to ``adapter/``, as PEFT does."""
    if run.recipe.adapter is None:
        return
    config = run.recipe.model
    own = run.checkpoints.load(step, with_optimizer=False).model
    reference = base_reference(run)
    pretrained = run.recipe.init.pretrained
    # PEFT opens the base by this path. Of a run that is its folder in Hugging Face's layout.
    base = {**reference, "path": pretrained or str(Path(reference["run"]) / "model")}
    write_adapter_folder(
        run.folder / "adapter", run.storage, config, run.recipe.adapter, own, weights, base
    )


def write_model_card(run: Run) -> None:
    """Write ``model/README.md``, if there is such a folder."""
    folder = run.folder / "model"
    if folder.is_dir():
        run.storage.write_text(
            folder / "README.md", model_card(run, run.pick("best"), "alone in `../adapter`")
        )


def model_card(run: Run, step: int, adapter_place: str = "") -> str:
    """Return a model card from the recipe, the data card and, once there is one, the evaluation.

    Args:
        run: The run.
        step: Of the checkpoint that the card is about.
        adapter_place: Where an adapter also is, apart from being merged; empty: nowhere.
    """
    recipe = run.recipe
    data = run.read_json("data_card.json") or {}
    evaluated = run.read_json("evaluation.json") or {}
    head: dict[str, Any] = {
        "library_name": "transformers",
        "tags": ["groundup"],
        "license": "other",
    }
    # A hub's card takes only licences of its own list; any other goes under license_name.
    head["license_name"] = str(data.get("licence", "unknown"))
    facts = run.read_json("environment.json") or {}
    # Only a hub's model at a known commit: a folder of the user's would be a link to nowhere.
    if (
        recipe.init.pretrained
        and "/" in recipe.init.pretrained
        and (facts.get("pretrained") or {}).get("revision")
    ):
        head["base_model"] = recipe.init.pretrained
    base = _start(run, facts)
    if recipe.adapter is not None:
        base += f", with an adapter ({recipe.adapter.name}) that is merged here"
        if adapter_place:
            base += f" and is {adapter_place}"
    if recipe.adapter is not None and recipe.adapter.quantized:
        base += (
            f" (trained beside the base in {recipe.adapter.quantized}; merged, in float32, into"
            " what that stands for)"
        )
    task = recipe.task.registered_name
    done = f"Trained with Groundup on the task `{task}`{base}: weights of step {step}."
    if run.is_pretrained:
        done = (
            f"Written by Groundup from the pretrained weights `{run.label}`; nothing was trained."
        )
    results = "Not evaluated yet: groundup evaluate"
    if evaluated:
        results = _list_values(evaluated.get("metrics", {}))
    sections = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {recipe.name}\n\n{recipe.about}",
        done,
        f"## Data\n\n{_list_values(data)}",
        f"## Results\n\n{results}",
        (
            "## Limits\n\nIt knows what is in the data above and nothing else, and states false"
            " things as readily as true ones. Nothing was done against bias or harm in the data."
            " The licence of the data applies."
        ),
        f"## Recipe\n\n```yaml\n{dump_recipe(recipe)}```",
    ]
    return "\n\n".join(sections) + "\n"


def _start(run: Run, facts: dict[str, Any]) -> str:
    """Return where the weights came from, in words."""
    init = run.recipe.init
    if init.run:
        return f", continuing from `{init.run}`"
    if not init.pretrained:
        return ", starting from random weights"
    revision = (facts.get("pretrained") or {}).get("revision") or init.revision
    words = f", starting from the pretrained weights `{init.pretrained}`"
    if revision:
        words += f" at revision `{revision}`"
    if "base_weights_sha256" in facts:
        words += f" (SHA-256 of the weights: `{facts['base_weights_sha256']}`)"
    return words


def _list_values(values: dict[str, Any]) -> str:
    rows = [
        f"- {name.replace('_', ' ')}: {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in values.items()
    ]
    return "\n".join(rows) or "Not recorded."
