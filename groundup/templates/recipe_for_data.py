"""A recipe that fits what looking at data found: about ten lines, each choice with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from groundup.core.errors import RecipeError
from groundup.data.sources.boxes import BoxesSource
from groundup.media.images import read_picture
from groundup.templates.look import Kind, Look, look_at
from groundup.templates.recipes_for_writing import (
    Line,
    inputs_and_outputs,
    rate_and_length,
    speech,
)

__all__ = ["recipe_for_data"]

_WIDTH = 100
_ENOUGH_DOCUMENTS = 20
_LOOKED_AT = 64  # pictures that are opened: enough to see their sizes


def recipe_for_data(name: str, data: Path, label: str | None = None) -> str:
    """Return the text of a recipe for data.

    Args:
        name: Of the run.
        data: A file or folder.
        label: The column to predict, where several could be it.

    Raises:
        DataError: If the data cannot be read, is nothing known, or several columns could be the
            label.
    """
    found = look_at(data, label)
    head = f"# {data} is taken for {found.kind}: {found.why}.\nname: {name}\n"
    return head + "".join(map(_render, _RECIPES[found.kind](found)))


def _render(line: Line) -> str:
    section, value, why = line
    text = f"{section}: {_flow(value)}"
    if not why:
        return f"{text}\n"
    if len(text) + len(why) + 4 <= _WIDTH:
        return f"{text}  # {why}\n"
    return f"# {why[0].upper()}{why[1:]}.\n{text}\n"


def _flow(value: Any) -> str:
    # One line each; a plain value alone ends with YAML's mark of the end of a document.
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return text.removesuffix("...\n").strip()


# ---------------------------------------------------------------------------------- language models
class _Size(NamedTuple):
    """What suits texts of up to ``most`` bytes in all."""

    most: float
    processor: Any
    why_processor: str
    shape: dict[str, int]
    context: int
    epochs: int
    why_epochs: str


_SIZES = (
    _Size(
        300_000,
        "bytes",
        "too few to learn a vocabulary from: each byte is a token",
        {"layers": 2, "width": 96, "heads": 3},
        64,
        10,
        "little text is read often, until the validation loss rises",
    ),
    _Size(
        10_000_000,
        {"name": "bpe", "vocab_size": 2048},
        "enough for a small vocabulary",
        {"layers": 4, "width": 256, "heads": 4},
        256,
        4,
        # Muennighoff et al., 2023, "Scaling data-constrained language models" (arXiv:2305.16264)
        "reading a text up to four times teaches almost as much as new text",
    ),
    _Size(
        math.inf,
        {"name": "bpe", "vocab_size": 8192},
        "enough for this vocabulary",
        {"layers": 6, "width": 384, "heads": 6},
        256,
        1,
        "much text need not be read twice",
    ),
)


def _size_for(found: Look) -> _Size:
    return next(size for size in _SIZES if found.size <= size.most)


def _language_model(found: Look, context: int, reason: str) -> Iterator[Line]:
    size = _size_for(found)
    yield "processor", size.processor, f"{_bytes(found.size)} of text are {size.why_processor}"
    yield "model", {"name": "gpt", **size.shape, "context_length": context}, reason


def _text(found: Look) -> Iterator[Line]:
    data: dict[str, Any] = {"name": "text", "path": str(found.path)}
    why = "each file is a document"
    if found.texts:
        why = "each row is a document"
        if found.texts[0] != "text":
            data["column"] = found.texts[0]
    elif found.count < _ENOUGH_DOCUMENTS:
        start = found.files[0].read_text(encoding="utf-8", errors="replace")[:1_000_000]
        data["split_on"] = "line"
        if start.count("\n\n") >= _ENOUGH_DOCUMENTS:
            data["split_on"] = "blank_line"
        why = "cut into documents, so that some can be held out to evaluate on"
    yield "data", {**data, **_held_out(found)}, why
    yield "task", "language_modeling", "to write text like this"
    size = _size_for(found)
    reason = "a size that this much text can teach; more text bears more layers"
    yield from _language_model(found, size.context, reason)
    yield "training", {"batch_size": 16, "epochs": size.epochs}, size.why_epochs
    yield "optim", {"lr": 1e-3, "warmup_steps": 20}, "suits models of this size"
    yield "samples", {"every": 100, "prompts": [_beginning(found)]}, "to see what it writes"


def _beginning(found: Look) -> str:
    if found.texts:
        text = str(found.rows[0].get(found.texts[0]))
    else:
        text = found.files[0].read_text(encoding="utf-8", errors="replace")[:1000]
    return " ".join(text.split()[:2])[:20]


def _conversations(found: Look, data: dict[str, Any], task: Any, why: str) -> Iterator[Line]:
    # In bytes, of which a text has at least as many as any tokenizer makes tokens.
    longest = max(len(str(row).encode()) for row in found.rows)
    if _size_for(found).processor != "bytes":
        longest //= 2  # of a vocabulary a token is two bytes or more, even for rare words
    context = min(1024, max(64, 64 * math.ceil((longest + 64) / 64)))  # 64: marks of the template
    reason = f"what is longer than {context} tokens is cut, and no error"
    yield "data", {**data, **_held_out(found)}, reason
    yield "task", task, why
    instead = "to fine-tune, write init: {run: runs/NAME} in place of processor and model"
    yield from _language_model(found, context, f"from random weights; {instead}")


def _chats(found: Look) -> Iterator[Line]:
    data = {"name": "conversations", "path": str(found.path), "packing": {"too_long": "truncate"}}
    yield from _conversations(found, data, "chat", "to answer as the assistant does")
    size = _size_for(found)
    yield "training", {"batch_size": 16, "epochs": size.epochs}, size.why_epochs
    yield "optim", {"lr": 1e-3, "warmup_steps": 20}, "suits models of this size; 1e-4 to fine-tune"


def _preferences(found: Look) -> Iterator[Line]:
    data = {"name": "preferences", "path": str(found.path), "too_long": "truncate"}
    single = "chosen" not in found.columns
    # Hong et al., 2024 (arXiv:2403.07691): ORPO needs no reference, and starts from any model.
    objective = "orpo"
    why = "learns the chosen answers too, so it needs no model that answers already; dpo does"
    if single:
        objective = "kto"
        why = "learns from single answers that are good or bad"
    task = {"name": "preference", "objective": objective}
    yield from _conversations(found, data, task, why)
    yield "training", {"batch_size": 8, "epochs": 3}, "a few passes: preferences are soon memorised"
    yield "optim", {"lr": 5e-4, "warmup_steps": 10}, "suits models of this size; 1e-5 to fine-tune"
    if single:
        yield "machine", {"micro_batch_size": 8}, "kto compares the answers of a whole batch"


# ----------------------------------------------------------------------------------------- examples
def _predicted(found: Look) -> Line:
    label = found.label
    if label is None:
        return "task", "classify", "the folder of a file is its class"
    column = label.column
    if label.is_number:
        why = f"column {column.name!r} has numbers ({column.shown}); {label.why}"
        return "task", "regression", why
    why = f"column {column.name!r} has {column.different} classes ({column.shown}); {label.why}"
    return "task", "classify", why


def _labelled_text(found: Look) -> Iterator[Line]:
    data: dict[str, Any] = {"name": "labelled_text", "path": str(found.path)}
    why = ""
    if found.label is not None:
        text, *pair = found.texts
        names = {"text_column": text, "label_column": found.label.column.name}
        defaults = {"text_column": "text", "label_column": "label"}
        data |= {key: name for key, name in names.items() if name != defaults[key]}
        if pair:
            data["pair_column"] = pair[0]
        why = f"column {text!r} has the texts"
    yield "data", {**data, **_held_out(found)}, why
    yield _predicted(found)
    if found.count < 50_000:
        yield (
            "processor",
            {"name": "bpe", "vocab_size": 8192, "words": True},
            "words in small letters: few texts teach little about capitals and spaces",
        )
        why = "few texts: adding up words and word pairs beats a transformer, and takes seconds"
        yield "model", {"name": "bag_of_ngrams", "width": 16, "ngrams": 2}, why
        yield "optim", {"lr": 1e-2}, "most words are in few texts, so their vectors move seldom"
        epochs = _epochs(found.count, 20_000)
        yield "training", {"batch_size": 32, "epochs": epochs, "patience": 5}, _PATIENCE
        return
    yield "processor", {"name": "bpe", "vocab_size": 8192}, ""
    why = "many texts teach a transformer the order of words"
    yield "model", {"name": "transformer_classifier", "layers": 4, "width": 128, "heads": 4}, why
    clipped = {"lr": 1e-3, "warmup_steps": 100, "clip_norm": 1.0}
    yield "optim", clipped, "transformers need a warm-up and clipping"
    yield "training", {"batch_size": 64, "epochs": 3}, ""


def _table(found: Look) -> Iterator[Line]:
    assert found.label is not None
    target = found.label.column.name
    data: dict[str, Any] = {"name": "table", "path": str(found.path), "target": target}
    idle = [
        column.name
        for column in found.columns.values()
        if column.holds in ("names", "text", "structure") and column.name != target
    ]
    why = ""
    if idle:
        data["ignore"] = idle
        why = "ignored: hardly a value comes twice, so nothing can be learned from it"
    yield "data", {**data, **_held_out(found)}, why
    yield _predicted(found)
    yield "processor", "table", "columns are numbers, classes, dates or yes and no by their values"
    training = {"batch_size": 32, "epochs": _epochs(found.count, 200_000), "patience": 10}
    if found.count < 5000:
        yield "model", {"name": "mlp", "hidden": [64, 64]}, "few rows: a small network"
    else:
        yield "model", {"name": "mlp", "hidden": [256, 128]}, "rows enough for this network"
        training["batch_size"] = 256
    yield "optim", {"lr": 1e-3}, "Adam's usual learning rate"
    yield "training", training, _PATIENCE


def _pictures(found: Look) -> Iterator[Line]:
    data = {"name": "images", "path": str(found.path)}
    yield "data", {**data, **_held_out(found)}, ""
    yield _predicted(found)
    # Spread over all folders, because the files of one class may all have one size.
    some = found.files[:: max(1, found.count // _LOOKED_AT)]
    shapes = {read_picture(file, str(file)).shape for file in some}
    height = sorted(shape[0] for shape in shapes)[len(shapes) // 2]
    width = sorted(shape[1] for shape in shapes)[len(shapes) // 2]
    processor: dict[str, Any] = {"name": "image"}
    why = f"all are {height} x {width} pixels"
    if len({shape[:2] for shape in shapes}) > 1 or max(height, width) > 224:
        side = min(224, 32 * max(1, round(max(height, width) / 32)))
        processor["size"] = [side, side]
        why = f"one size for all; they have about {height} x {width} pixels"
        height = width = side
    if len({len(shape) for shape in shapes}) > 1:
        processor["channels"] = 3
        why += ", some grey and some coloured"
    yield "processor", processor, why
    if min(height, width) <= 64:
        yield "model", {"name": "cnn", "padding": True}, "small pictures: two convolutions do"
    else:
        model = {"name": "resnet", "layers": [2, 2, 2, 2]}
        yield "model", model, "ResNet-18: larger pictures need depth"
    yield "optim", {"lr": 1e-3}, "Adam's usual learning rate"
    epochs = _epochs(found.count, 60_000)
    yield "training", {"batch_size": 32, "epochs": epochs, "patience": 10}, _PATIENCE


def _boxes(found: Look) -> Iterator[Line]:
    data: dict[str, Any] = {"name": "boxes", "path": str(found.path), **_held_out(found)}
    try:
        BoxesSource.model_validate({"path": str(found.path), **_held_out(found)}).splits()
    except RecipeError:
        # Pictures for validation are named, and a share would have no effect.
        data = {"name": "boxes", "path": str(found.path)}
    yield "data", data, ""
    yield "task", "detect", "things are found, and named"
    some = found.files[:: max(1, found.count // _LOOKED_AT)]
    sides = sorted(max(read_picture(file, str(file)).shape[:2]) for file in some)
    # The coarsest map of a detector has a point every 32 pixels.
    side = min(512, 32 * max(2, round(sides[len(sides) // 2] / 32)))
    processor = {"name": "image", "size": [side, side], "resize": "pad", "channels": 3}
    why = (
        f"one size for all, with their proportions; they have about {sides[len(sides) // 2]} pixels"
    )
    yield "processor", {**processor, "normalise": "standard"}, why
    yield "model", {"name": "detector"}, "finds things at every point of three maps"
    yield "optim", {"lr": 3e-3}, "suits a small detector from random weights"
    epochs = _epochs(found.count, 60_000)
    yield "training", {"batch_size": 16, "epochs": epochs, "patience": 10}, _PATIENCE


def _sounds(found: Look) -> Iterator[Line]:
    data = {"name": "audio", "path": str(found.path)}
    if found.label is not None and found.label.column.name != "label":
        data["label_column"] = found.label.column.name
    yield "data", {**data, **_held_out(found)}, ""
    yield _predicted(found)
    rate, seconds = rate_and_length(found)
    processor = {"name": "audio", "sample_rate": rate, "deltas": 1}
    why = f"sounds of up to {seconds:.1f} s at {rate} samples a second, and how they change"
    yield "processor", processor, why
    model = {"name": "rnn", "cell": "gru", "width": 96, "bidirectional": True, "pooling": "mean"}
    yield "model", model, "reads sounds of any length, both ways"
    yield "optim", {"lr": 3e-3, "clip_norm": 1.0}, "recurrent networks have rare large gradients"
    epochs = _epochs(found.count, 60_000)
    yield "training", {"batch_size": 32, "epochs": epochs, "patience": 10}, _PATIENCE


def _pairs(found: Look) -> Iterator[Line]:
    anchor, positive = found.texts
    data = {"name": "text_pairs", "path": str(found.path)}
    names = {"anchor_column": anchor, "positive_column": positive}
    defaults = {"anchor_column": "anchor", "positive_column": "positive"}
    data |= {key: name for key, name in names.items() if name != defaults[key]}
    why = f"given {anchor!r}, {positive!r} is to be found"
    yield "data", {**data, **_held_out(found)}, why
    yield "task", {"name": "sentence_embedding", "max_tokens": 64}, "a vector for each text"
    yield "processor", {"name": "bpe", "vocab_size": 4096, "encoder": True}, "marks of an encoder"
    model = {"name": "bert", "layers": 2, "width": 128, "heads": 4, "context_length": 64}
    why = "from random weights; better, replace processor and model by init: {pretrained: NAME}"
    yield "model", model, why
    yield "optim", {"lr": 5e-4, "warmup_steps": 20}, "suits a small encoder; 1e-4 to fine-tune"
    yield "training", {"batch_size": 32, "epochs": 5}, "each is told from the rest of its batch"
    yield "machine", {"micro_batch_size": 32}, "so a batch must not be cut"


def _inputs_and_outputs(found: Look) -> Iterator[Line]:
    return inputs_and_outputs(found, _held_out(found), _epochs(found.count, 400_000))


def _speech(found: Look) -> Iterator[Line]:
    return speech(found, _held_out(found), _epochs(found.count, 20_000))


_PATIENCE = "ends early where the validation does not improve"
_RECIPES: Mapping[Kind, Callable[[Look], Iterator[Line]]] = {
    "text": _text,
    "chats": _chats,
    "preferences": _preferences,
    "labelled text": _labelled_text,
    "table": _table,
    "pictures": _pictures,
    "boxes": _boxes,
    "sounds": _sounds,
    "pairs": _pairs,
    "inputs and outputs": _inputs_and_outputs,
    "speech": _speech,
}


def _epochs(count: int, examples: int) -> int:
    """Return the passes that show about ``examples`` in all: 5 to 100."""
    return min(100, max(5, examples // count))


def _held_out(found: Look) -> dict[str, float]:
    """Return a larger share to hold out where the usual one would be a handful."""
    few = found.count < 500 and found.kind != "text"
    return {"fraction": 0.2} if few else {}


def _bytes(size: int) -> str:
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= one:
            return f"{size / one:.3g} {unit}"
    return f"{size} bytes"
