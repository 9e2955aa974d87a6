"""Problems with a recipe that learns them well, and what can be wrong with it: what
scripts/verdict_sets.py makes curves of.
"""

from __future__ import annotations

import csv
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets

Recipe = dict[str, Any]
Arrays = tuple[NDArray[Any], NDArray[Any]]
_MACHINE = {"threads": 1, "compile": False, "precision": "fp32"}
_RARELY = {"every": 100_000}


def change(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other values for dotted keys; a key without a dot is a whole section."""
    found = {name: dict(own) if isinstance(own, dict) else own for name, own in recipe.items()}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if name:
            found.setdefault(section, {})[name] = value
        else:
            found[section] = value
    return found


# ----------------------------------------------------------------------------------------- problems
def table(name: str, arrays: Arrays, task: str, **changes: Any) -> Recipe:
    """Return a recipe for rows of numbers, written to a file."""
    inputs, target = arrays
    with Path(f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"x{n}" for n in range(inputs.shape[1])), "y"])
        for row, value in zip(inputs, target, strict=True):
            writer.writerow([*(f"{number:.6g}" for number in row), value])
    recipe = {
        "model": {"name": "mlp", "hidden": [32]},
        "task": task,
        "processor": "table",
        "data": {"name": "table", "path": f"{name}.csv", "target": "y", "fraction": 0.3},
        "optim": {"name": "adamw", "lr": 2e-3},
        "training": {"batch_size": 32, "epochs": 30},
        "logging": {"every": 10},
        "evaluation": {"every": "epoch"},
        "checkpoints": _RARELY,
        "machine": _MACHINE,
    }
    return change(recipe, changes)


def pictures(name: str, arrays: Arrays, **changes: Any) -> Recipe:
    """Return a recipe for pictures (N, H, W) with classes."""
    np.savez(f"{name}.npz", x=arrays[0].astype(np.float32), y=arrays[1])
    recipe = {
        "model": {"name": "mlp", "hidden": [64]},
        "task": "classify",
        "processor": "image",
        "data": {"name": "arrays", "path": f"{name}.npz", "fraction": 0.25},
        "optim": {"name": "adamw", "lr": 1e-3},
        "training": {"batch_size": 32, "epochs": 15},
        "logging": {"every": 10},
        "evaluation": {"every": "epoch"},
        "checkpoints": _RARELY,
        "machine": _MACHINE,
    }
    return change(recipe, changes)


def waves(name: str, arrays: Arrays, **changes: Any) -> Recipe:
    """Return a recipe for sequences (N, T, F) with classes."""
    frames, labels = arrays
    np.savez(
        f"{name}.npz",
        X=frames.reshape(-1, frames.shape[2]).astype(np.float32),
        lengths=np.full(len(frames), frames.shape[1]),
        y=labels,
    )
    recipe = {
        "model": {"name": "rnn", "cell": "gru", "width": 24},
        "task": "classify",
        "processor": "frames",
        "data": {"name": "sequences", "path": f"{name}.npz", "fraction": 0.25},
        "optim": {"name": "adamw", "lr": 3e-3, "clip_norm": 1.0},
        "training": {"batch_size": 32, "epochs": 12},
        "logging": {"every": 5},
        "evaluation": {"every": "epoch"},
        "checkpoints": _RARELY,
        "machine": _MACHINE,
    }
    return change(recipe, changes)


def labelled(name: str, rows: list[tuple[str, str]], **changes: Any) -> Recipe:
    """Return a recipe for texts with classes."""
    with Path(f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    recipe = {
        "model": {"name": "bag_of_ngrams", "width": 16, "ngrams": 2, "buckets": 4096},
        "task": "classify",
        "processor": {"name": "bpe", "vocab_size": 800},
        "data": {"name": "labelled_text", "path": f"{name}.csv", "fraction": 0.25},
        "optim": {"name": "adamw", "lr": 3e-3},
        "training": {"batch_size": 32, "epochs": 8},
        "logging": {"every": 10},
        "evaluation": {"every": 40},
        "checkpoints": _RARELY,
        "machine": _MACHINE,
    }
    return change(recipe, changes)


def prose(name: str, text: str, **changes: Any) -> Recipe:
    """Return a recipe for a language model of characters' bytes."""
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    parts = [text[start : start + 1500] for start in range(0, len(text), 1500)]
    for number, part in enumerate(parts):
        (folder / f"{number}.txt").write_text(part, encoding="utf-8")
    recipe = {
        "model": {"name": "gpt", "layers": 2, "width": 32, "heads": 2, "context_length": 48},
        "task": "language_modeling",
        "processor": "bytes",
        "data": {"name": "text", "path": name, "fraction": 0.1},
        "optim": {"name": "adamw", "lr": 3e-3, "schedule": "cosine", "warmup_steps": 20},
        "training": {"batch_size": 16, "steps": 400},
        "logging": {"every": 5},
        "evaluation": {"every": 20, "batches": None},
        "checkpoints": _RARELY,
        "machine": _MACHINE,
    }
    return change(recipe, changes)


# --------------------------------------------------------------------------------------------- data
def named(arrays: Arrays) -> Arrays:
    """Return classes as words, which no target of numbers is."""
    return arrays[0], np.array([f"c{label}" for label in arrays[1]])


def few(arrays: Arrays, count: int, seed: int = 0) -> Arrays:
    """Return some of the rows."""
    chosen = np.random.default_rng(seed).permutation(len(arrays[0]))[:count]
    return arrays[0][chosen], arrays[1][chosen]


def flip(arrays: Arrays, share: float, seed: int = 0) -> Arrays:
    """Return a share of the classes replaced by random ones."""
    draws = np.random.default_rng(seed)
    wrong = draws.random(len(arrays[1])) < share
    return arrays[0], np.where(wrong, draws.permutation(arrays[1]), arrays[1])


def shuffle(arrays: Arrays, seed: int = 0) -> Arrays:
    """Return the targets in a random order."""
    return arrays[0], np.random.default_rng(seed).permutation(arrays[1])


def unrelated(arrays: Arrays, seed: int = 0) -> Arrays:
    """Return random numbers as targets."""
    return arrays[0], np.random.default_rng(seed).normal(size=len(arrays[0])).round(4)


def leak(arrays: Arrays, noise: float = 0.0, seed: int = 0) -> Arrays:
    """Return the target as one more column of numbers, with noise of a share of its spread."""
    draws = np.random.default_rng(seed)
    told = np.unique(arrays[1], return_inverse=True)[1]
    if arrays[1].dtype.kind == "f":
        told = arrays[1]
    column = told + noise * told.std() * draws.normal(size=len(told))
    return np.column_stack([arrays[0], column]), arrays[1]


def digits() -> Arrays:
    """Return 1,797 pictures of 8 by 8."""
    found = datasets.load_digits()
    return found.images, found.target


def bars(count: int, noise: float, size: int = 12, seed: int = 0) -> Arrays:
    """Return pictures of a bar in one of four directions under noise."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 4, count)
    found = draws.normal(0, noise, (count, size, size))
    for picture, label in zip(found, labels, strict=True):
        place = draws.integers(2, size - 2)
        if label == 0:
            picture[place] += 1
        elif label == 1:
            picture[:, place] += 1
        else:
            diagonal = np.eye(size, k=int(place) - size // 2)
            picture += diagonal if label == 2 else diagonal[:, ::-1]
    return found, labels


def tones(count: int, noise: float, length: int = 24, seed: int = 0) -> Arrays:
    """Return sequences of a sine, a square and a saw of random pitch under noise."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 3, count)
    pitch = draws.uniform(0.15, 0.35, (count, 1))
    phase = (np.arange(length) * pitch + draws.random((count, 1))) % 1
    shapes = [np.sin(2 * np.pi * phase), np.sign(phase - 0.5), 2 * phase - 1]
    found = np.choose(labels[:, None], shapes) + draws.normal(0, noise, (count, length))
    return found[:, :, None], labels


def shapes(count: int, noise: float, size: int = 16, seed: int = 0) -> Arrays:
    """Return pictures of a disc, a ring, a square and a cross at random places under noise."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 4, count)
    places = draws.uniform(5, size - 5, (2, count, 1, 1))
    down, right = np.indices((size, size))[:, None] - places
    far = np.hypot(down, right)
    wide = np.maximum(np.abs(down), np.abs(right))
    arms = np.minimum(np.abs(down), np.abs(right))
    drawn = [far < 3.5, np.abs(far - 3.2) < 1, wide < 3.2, (arms < 1) & (wide < 4.5)]
    found = np.choose(labels[:, None, None], [each.astype(float) for each in drawn])
    return found + draws.normal(0, noise, found.shape), labels


def gratings(count: int, noise: float, size: int = 12, seed: int = 0) -> Arrays:
    """Return pictures of stripes in one of three directions, of random width and phase."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 3, count)
    angle = np.pi * (labels / 3 + draws.uniform(-0.06, 0.06, count))[:, None, None]
    down, right = np.indices((size, size))
    along = right * np.cos(angle) + down * np.sin(angle)
    wave = np.sin(along * draws.uniform(1.0, 1.6, (count, 1, 1)) + 6 * draws.random((count, 1, 1)))
    return wave + draws.normal(0, noise, wave.shape), labels


def motifs(count: int, noise: float, length: int = 30, seed: int = 0) -> Arrays:
    """Return sequences with a rise and fall somewhere, with a fall and rise, or with neither."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 3, count)
    found = draws.normal(0, noise, (count, length))
    shape = np.sin(np.linspace(0, 2 * np.pi, 9)) * 1.5
    for row, label in zip(found, labels, strict=True):
        place = draws.integers(0, length - 9)
        row[place : place + 9] += shape * (0, 1, -1)[label]
    return found[:, :, None], labels


def bent(count: int, noise: float, seed: int = 0) -> Arrays:
    """Return numbers that are a cubic of three columns, with noise."""
    draws = np.random.default_rng(seed)
    x = draws.uniform(-1.5, 1.5, (count, 3))
    y = x[:, 0] ** 3 - 2 * x[:, 1] ** 2 + x[:, 0] * x[:, 2]
    return x, (y + noise * y.std() * draws.normal(size=count)).round(5)


def echoes(count: int, length: int = 40, seed: int = 0) -> Arrays:
    """Return autoregressive sequences of three strengths."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 3, count)
    strength = np.array([-0.4, 0.3, 0.85])[labels]
    found = draws.normal(size=(count, length))
    for place in range(1, length):
        found[:, place] += strength * found[:, place - 1]
    return found[:, :, None], labels


def heavy_tails(count: int, seed: int = 0) -> Arrays:
    """Return numbers that are linear and bent in a few columns, with a few large errors."""
    draws = np.random.default_rng(seed)
    x = draws.normal(size=(count, 5))
    y = 2 * x[:, 0] - x[:, 1] + np.abs(x[:, 2]) + 0.6 * draws.standard_t(3, count)
    return x, y.round(5)


def smooth_target(count: int, noise: float, columns: int = 4, seed: int = 0) -> Arrays:
    """Return numbers that are a smooth function of a few columns, with noise."""
    draws = np.random.default_rng(seed)
    x = draws.normal(size=(count, columns))
    y = np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * np.abs(x[:, -1])
    return x, (y + noise * y.std() * draws.normal(size=count)).round(5)


def source_lines(modules: list[str], most: int) -> list[tuple[str, str]]:
    """Return lines of Python modules with the module that each is from."""
    found = []
    for name in modules:
        lines = inspect.getsource(importlib.import_module(name)).split("\n")
        kept = list(dict.fromkeys(line.strip() for line in lines if len(line.strip()) > 25))
        found += [(line, name.rpartition(".")[2]) for line in kept[:most]]
    return found


def source_text(modules: list[str]) -> str:
    """Return the source of Python modules."""
    return "\n".join(inspect.getsource(importlib.import_module(name)) for name in modules)


def docstrings(modules: list[str]) -> str:
    """Return what Python modules and their parts say of themselves."""
    found = []
    for name in modules:
        own = importlib.import_module(name)
        parts = [own, *(getattr(own, each) for each in sorted(dir(own)))]
        found += [str(inspect.getdoc(part)) for part in parts if callable(part) or part is own]
    return "\n".join(dict.fromkeys(found))


def mark(arrays: Arrays) -> Arrays:
    """Return pictures whose first row has a dot at the place of the class."""
    found = arrays[0].copy()
    found[np.arange(len(found)), 0, arrays[1]] += 6
    return found, arrays[1]


def shuffle_list(items: list[Any], seed: int = 0) -> list[Any]:
    """Return a list in a random order."""
    return [items[n] for n in np.random.default_rng(seed).permutation(len(items))]


def few_list(items: list[Any], count: int, seed: int = 0) -> list[Any]:
    """Return some of a list."""
    return shuffle_list(items, seed)[:count]


# ------------------------------------------------------------------------------------------- causes
def short(recipe: Recipe, steps: int, every: int) -> Recipe:
    """Return a run of few steps, logged often."""
    size = recipe["training"]["batch_size"]
    training = {"batch_size": size, "steps": steps}
    return change(
        recipe,
        {"training": training, "logging.every": max(1, every // 2), "evaluation.every": every},
    )


def diverge(recipe: Recipe, rate: float, steps: int) -> Recipe:
    """Return a run whose rate rises until it is far too high, and stays there."""
    optim = {"name": recipe["optim"]["name"], "lr": rate, "warmup_steps": steps}
    return change(recipe, {"optim": {**optim, "schedule": "constant", "clip_norm": None}})


def recover(recipe: Recipe, rate: float, steps: int) -> Recipe:
    """Return a run whose rate rises until it is far too high, and comes down to nothing."""
    optim = {"name": recipe["optim"]["name"], "lr": rate, "warmup_steps": steps}
    more = {"schedule": "linear", "final_lr_fraction": 0.0, "clip_norm": None}
    return change(recipe, {"optim": {**optim, **more}})


def scale_rate(recipe: Recipe, factor: float) -> Recipe:
    """Return a recipe with another rate."""
    return change(recipe, {"optim.lr": recipe["optim"]["lr"] * factor})
