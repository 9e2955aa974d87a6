"""A run of a few steps for every registered model, on scikit-learn's digits as pictures, frames or
texts.

A new model needs an entry in ``MODELS``: the tests that go over all registered models then train
    it, too.
"""

from __future__ import annotations

import copy
import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
from recommendations import write_interactions
from self_playing import GAME_SECTIONS

from groundup.data.sources.arrays import Arrays

# Read from its files: to import scikit-learn takes two seconds.
SKLEARN_DATA = Path(str(importlib.util.find_spec("sklearn").origin)).parent / "datasets" / "data"  # type: ignore[union-attr]
PATIENT_COLUMNS = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")

TRUNK = {"name": "resnet", "layers": [1, 1, 1], "width": 4, "stem": "small"}
QUERIES = {"backbone": TRUNK, "mlp_width": 24, "decoder_layers": 2, "queries": 8, "dropout": 0.1}
SHORT = {"context_length": 16}
# Each model with what it reads. What is random in training is on: tests of exact losses end it.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt": (
        "documents",
        {"layers": 1, "width": 16, "heads": 2, "context_length": 16, "dropout": 0.1},
    ),
    "gemma3": (
        "documents",
        {
            **{"layers": 2, "width": 16, "heads": 2, "head_dim": 8, "mlp_width": 24, **SHORT},
            **{"global_every": 2, "sliding_window": 6, "dropout": 0.1},
        },
    ),
    "phi3": (
        "documents",
        {"layers": 1, "width": 16, "heads": 2, "mlp_width": 24, **SHORT, "dropout": 0.1},
    ),
    "encoder_decoder": (
        "pairs",
        {"layers": 1, "width": 16, "heads": 2, "context_length": 80, "dropout": 0.1},
    ),
    "hub": (
        "documents",
        {
            "config": {
                **{
                    "model_type": "olmo2",
                    "hidden_size": 16,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                },
                **{
                    "intermediate_size": 24,
                    "vocab_size": 300,
                    "bos_token_id": 0,
                    "eos_token_id": 1,
                    "pad_token_id": 1,
                },
                "attention_dropout": 0.1,
            },
            "context_length": 16,
            "dropout": 0.1,
        },
    ),
    "mlp": ("pictures", {"hidden": [24], "norm": "layer", "dropout": 0.1}),
    "cnn": (
        "pictures",
        {"channels": [4, 6], "hidden": [16], "padding": True, "batch_norm": True, "dropout": 0.1},
    ),
    "resnet": ("pictures", {"layers": [1, 1], "width": 4, "stem": "small"}),
    "convnext": (
        "pictures",
        {
            "layers": [1, 1],
            "widths": [6, 8],
            "patch": 2,
            "layer_scale": 0.1,
            "stochastic_depth": 0.3,
        },
    ),
    "vit": ("pictures", {"patch": 2, "layers": 2, "width": 12, "heads": 2, "dropout": 0.1}),
    "detector": ("scenes", {"backbone": TRUNK, "strides": [4, 8], "width": 8, "head_layers": 1}),
    "fsq_autoencoder": ("redrawn", {"patch": 2, "widths": [8, 12], "levels": [4, 3], "groups": 4}),
    "detr": ("scenes", {**QUERIES, "width": 16, "heads": 2, "encoder_layers": 1}),
    "rt_detr": ("scenes", {**QUERIES, "maps": 2, "width": 16, "encoder_width": 16}),
    "rnn": (
        "frames",
        {"width": 12, "cell": "gru", "bidirectional": True, "pooling": "attention", "dropout": 0.1},
    ),
    "ctc": (
        "spoken",
        {"blocks": "bilstm", "layers": 1, "width": 12, "subsampling": 2, "dropout": 0.1},
    ),
    "whisper": (
        "spoken",
        {"layers": 1, "width": 16, "heads": 2, "source_positions": 16, **SHORT, "dropout": 0.1},
    ),
    "policy_value": ("games", {"backbone": {"name": "mlp", "hidden": [16]}}),
    "unet": ("drawings", {"widths": [8, 16], "groups": 4, "head_width": 8, "dropout": 0.1}),
    "dit": ("drawings", {"patch": 2, "layers": 2, "width": 12, "heads": 2, "dropout": 0.1}),
    "matrix_factorization": ("interactions", {"width": 8, "dropout": 0.1}),
    "two_tower": ("interactions", {"width": 8, "hidden": 12, "dropout": 0.1}),
    "sequence_recommender": ("interactions", {"layers": 1, "width": 8, "dropout": 0.1}),
    "bag_of_ngrams": ("texts", {"width": 8, "ngrams": 2, "buckets": 500, "dropout": 0.1}),
    "bert": ("texts", {"layers": 1, "width": 16, "heads": 2, "dropout": 0.1}),
    "transformer_classifier": ("texts", {"layers": 1, "width": 16, "heads": 2, "dropout": 0.1}),
}
# Tasks that only an encoder learns, with the data and settings of their tiny runs.
ENCODER_TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "sentence_embedding": ("text_pairs", {"max_tokens": 80}),
    "token_classification": ("token_labels", {"max_tokens": 80}),
    "extractive_qa": (
        "question_answers",
        {"max_tokens": 24, "max_question_tokens": 8, "stride": 6},
    ),
}
RANDOM = ("dropout", "stochastic_depth")  # settings that make a forward pass random

# All that may be changed at random in such inputs.
AUGMENTATION: dict[str, dict[str, Any]] = {
    "pictures": {
        **{
            "rotate_degrees": 10.0,
            "scale": [0.9, 1.1],
            "shift": 0.1,
            "crop": 0.1,
            "flip": True,
            "brightness": 0.2,
        },
        **{
            "contrast": 0.2,
            "randaugment": 1,
            "erase": 0.3,
            "noise": 0.1,
            "mixup": 0.4,
            "cutmix": 1.0,
        },
    },
    "redrawn": {"flip": True, "shift": 0.1, "brightness": 0.2, "noise": 0.1},
    "scenes": {"flip": True, "scale": [0.8, 1.2], "shift": 0.1, "contrast": 0.2, "mosaic": 0.5},
    "frames": {"time_mask": 0.3, "frequency_mask": 0.3, "noise": 0.1},
    "spoken": {"time_masks": 1, "time_mask": 0.2, "frequency_masks": 1},
    "texts": {"token_dropout": 0.2},
    "numbers": {"noise": 0.1, "mixup": 0.4},
}
# What language models have by default, said for the tasks whose own defaults are others.
FALLING_AND_CLIPPED = {"weight_decay": 0.1, "clip_norm": 1.0, "schedule": "cosine"}
MACHINE = {
    "device": "cpu",
    "precision": "fp32",
    "compile": False,
    "threads": 1,
    "micro_batch_size": 16,
}


def tiny_run(
    name: str, folder: Path, model: dict[str, Any] | None = None, reads: str = ""
) -> dict[str, Any]:
    """Return the recipe of a run of 20 steps, its data written to ``folder``.

    Args:
        name: A registered model.
        folder: Where files of data may be written.
        model: Settings to add to the model's, or to put in place of its own.
        reads: ``pictures``, ``scenes``, ``frames``, ``texts``, ``numbers``, ``documents`` or
            ``pairs``; empty: as ``MODELS`` says.
    """
    assert name in MODELS, f"give the model {name!r} a tiny run in {__file__}"
    own, settings = MODELS[name]
    reads = reads or own
    recipe = {
        **{
            "name": "tiny",
            "model": {"name": name, **settings, **(model or {})},
            **_data(reads, folder),
        },
        **{
            "optim": {"lr": 3e-3, "warmup_steps": 2, **FALLING_AND_CLIPPED},
            "training": {"batch_size": 16, "steps": 20},
            "machine": MACHINE,
        },
    }
    return copy.deepcopy(recipe)  # what one test changes is no other test's


def augmented(recipe: dict[str, Any], name: str, reads: str = "") -> dict[str, Any]:
    """Return a model's tiny run with all its data's augmentation on; windows of documents start
    anywhere already, and pairs of texts are left as they are."""
    reads = reads or MODELS[name][0]
    if reads in ("documents", "pairs", "drawings", "interactions", "games"):
        return recipe
    return recipe | {"task": {**recipe["task"], "augmentation": AUGMENTATION[reads]}}


def without_chance(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe with nothing random in the forward pass."""
    quiet = {
        key: 0.0 if key in RANDOM else copy.deepcopy(value)
        for key, value in recipe["model"].items()
    }
    return recipe | {"model": quiet}


def _data(reads: str, folder: Path) -> dict[str, Any]:
    """Return the sections of task, data and processor."""
    classify = {"name": "classify"}
    if reads == "pictures":
        return {"task": classify, "data": "arrays", "processor": "image"}
    if reads == "drawings":  # to be made, not told apart
        around_zero = {"name": "image", "normalise": "given", "mean": [0.5], "std": [0.5]}
        return {"task": {"name": "generate_images"}, "data": "arrays", "processor": around_zero}
    if reads == "scenes":
        sizes = {"size": 32, "digits": [0, 3], "digit_size": [8, 12]}
        data = {"name": "digit_scenes", "pictures": 96, "held_out": 16, "tested": 0, **sizes}
        return {"task": {"name": "detect", "measured": 8}, "data": data, "processor": "image"}
    if reads == "redrawn":
        task = {"name": "autoencode", "measured": 8}
        return {"task": task, "data": "arrays", "processor": "image"}
    if reads == "numbers":
        data = {"name": "table", "path": write_patients(folder), "target": "progression"}
        return {"task": {"name": "regression"}, "data": data, "processor": "table"}
    if reads == "games":
        return GAME_SECTIONS
    if reads == "interactions":
        task = {"name": "recommend", "max_history": 8}
        return {"task": task, "data": write_interactions(folder), "processor": "interactions"}
    digits = Arrays().examples("train", folder)[:200]
    if reads == "spoken":
        return write_digit_strings(folder, digits)
    if reads == "frames":
        rows = [example.inputs[: 5 + int(example.name) % 4] for example in digits]
        labels, lengths = [example.target for example in digits], [len(each) for each in rows]
        np.savez(folder / "frames.npz", X=np.concatenate(rows), lengths=lengths, y=labels)
        return {
            "task": classify,
            "data": {"name": "sequences", "path": str(folder / "frames.npz")},
            "processor": "frames",
        }
    texts = [drawn(example.inputs[: 6 + int(example.name) % 3]) for example in digits]
    if reads == "texts":
        np.savez(folder / "texts.npz", x=np.array(texts), y=[example.target for example in digits])
        data = {"name": "arrays", "path": str(folder / "texts.npz")}
        return {"task": classify | {"max_tokens": 80}, "data": data, "processor": "bytes"}
    if reads == "pairs":
        return {
            "task": {"name": "text_to_text", "max_source_tokens": 40, "max_target_tokens": 20},
            "data": write_pairs(folder, texts),
            "processor": "bytes",
        }
    path = folder / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    data = {"name": "text", "path": str(path), "fraction": 0.2}
    return {"task": {"name": "language_modeling"}, "data": data, "processor": "bytes"}


def write_digit_strings(folder: Path, digits: list[Any]) -> dict[str, Any]:
    """Write three digits in a row as frames with the digits as their transcript, and return the
    sections of task, data and processor."""
    strings = [digits[n : n + 3 - n % 2] for n in range(0, len(digits) - 2, 2)]
    frames = [np.concatenate([each.inputs for each in own]) for own in strings]
    texts = ["".join(str(each.target) for each in own) for own in strings]
    np.savez(
        folder / "spoken.npz", X=np.concatenate(frames), lengths=list(map(len, frames)), y=texts
    )
    return {
        "task": {"name": "transcribe", "measured": 8},
        "data": {"name": "sequences", "path": str(folder / "spoken.npz"), "fraction": 0.2},
        "processor": {"name": "speech", "features": "given"},
    }


def write_pairs(folder: Path, texts: list[str]) -> dict[str, Any]:
    """Write upper rows of drawn digits with a row below them, and return the section ``data``."""
    rows = []
    for number, text in enumerate(texts):
        lines = text.replace(" ", "_").split("\n")
        rows.append({"source": "\n".join(lines[: 2 + number % 3]), "target": lines[5]})
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"name": "parallel_text", "path": str(path), "fraction": 0.2}


def drawn(pixels: Any) -> str:
    """Return a picture of 0 to 16 as lines of characters."""
    return "\n".join("".join(" .oO@"[int(value) // 4] for value in row) for row in pixels)


def write_patients(folder: Path) -> str:
    """Write scikit-learn's 442 patients with diabetes as a table, and return its path."""
    rows, targets = (
        np.loadtxt(SKLEARN_DATA / f"diabetes_{part}.csv.gz", dtype=np.float64)
        for part in ("data_raw", "target")
    )
    with (folder / "patients.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*PATIENT_COLUMNS, "progression"])
        writer.writerows(
            [*row, target] for row, target in zip(rows.tolist(), targets.tolist(), strict=True)
        )
    return str(folder / "patients.csv")


def encoder_run(task: str, folder: Path, **settings: Any) -> dict[str, Any]:
    """Return the recipe of a run of 20 steps of a task that an encoder learns from texts, on digits
    drawn as texts.

    Args:
        task: ``sentence_embedding``: upper halves belong to lower ones. ``token_classification``: rows of a digit are
            words, and labelled by whether there is ink on the left. ``extractive_qa``: the fourth
            row is asked for.
        folder: Where files of data may be written.
        **settings: Of the task.
    """
    data, own = ENCODER_TASKS[task]
    rows: list[dict[str, Any]] = []
    for example in Arrays().examples("train", folder)[:200]:
        lines = drawn(example.inputs).replace(" ", "_").split("\n")
        marks = ["O" if line.startswith("__") else "B-ink" for line in lines]
        rows.append(
            {
                "anchor": "\n".join(lines[:4]),
                "positive": "\n".join(lines[4:]),
                "tokens": lines,
                "labels": marks,
            }
        )
        answers = [{"text": lines[3], "answer_start": sum(len(line) + 1 for line in lines[:3])}]
        rows[-1] |= {
            "question": f"What follows {lines[2]}",
            "context": "\n".join(lines),
            "answers": answers,
        }
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tiny_run("bert", folder, reads="texts") | {
        "task": {"name": task, **own, **settings},
        "data": {"name": data, "path": str(path), "fraction": 0.3},
        "processor": {"name": "bpe", "vocab_size": 300, "encoder": True},
    }


def write_several_targets(folder: Path, *, rare: bool = False) -> dict[str, Any]:
    """Write digits with their class, their ink and whether they have a loop, and return the section
    ``data``.

    Every third has no known ink, and every fourth no known loop. ``rare`` leaves out most of those
    from 2 to 9.
    """
    digits = Arrays().examples("train", folder)[: 900 if rare else 300]
    digits = [e for number, e in enumerate(digits) if not rare or e.target < 2 or number % 8 == 0]
    ink = np.array([float(example.inputs.mean()) for example in digits])
    loop = np.array([float(example.target in (0, 6, 8, 9)) for example in digits])
    ink[::3], loop[::4] = np.nan, np.nan
    labels = {"y": [example.target for example in digits], "ink": ink, "loop": loop}
    np.savez(folder / "several.npz", x=np.stack([example.inputs for example in digits]), **labels)
    keys = {"digit": "y", "ink": "ink", "loop": "loop"}
    return {"name": "arrays", "path": str(folder / "several.npz"), "labels_keys": keys}


def preference_run(folder: Path, **task: Any) -> dict[str, Any]:
    """Return the recipe of a run of preference tuning on drawn digits: of a digit and another, the
    larger is chosen."""
    digits = Arrays().examples("train", folder)[:60]
    texts = [drawn(example.inputs[:3]) for example in digits]
    rows = [
        {
            "prompt": f"A digit, drawn: {number}",
            "chosen": f"{one}{'!' * (number % 5)}",
            "rejected": other,
        }
        for number, (one, other) in enumerate(zip(texts[::2], texts[1::2], strict=True))
    ]
    path = folder / "preferences.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    unpaired = task.get("objective") == "kto"
    data = {
        "name": "preferences",
        "path": str(path),
        "fraction": 0.2,
        "unpaired": unpaired,
    }
    model = {**MODELS["gpt"][1], "context_length": 96}
    recipe = tiny_run("gpt", folder, model) | {"task": {"name": "preference", **task}, "data": data}
    return recipe | {
        "machine": {**MACHINE, "micro_batch_size": 8 if unpaired else 4},
        "training": {"batch_size": 8, "steps": 20},
    }
