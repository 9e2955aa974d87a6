"""Small runs that learn codes of digits, and captions of digits by these codes."""

from __future__ import annotations

import copy
import csv
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from pictures import save
from tiny_runs import FALLING_AND_CLIPPED, MACHINE, tiny_run

from groundup import api
from groundup.contracts.trained_models import TrainedModel
from groundup.core.values import Example
from groundup.data.sources.arrays import Arrays
from groundup.processors.picture_tokens import PictureTokens, PictureTokensConfig
from groundup.runs.processor import load_processor
from groundup.runs.run import Run
from groundup.weights.initial_model import build_trained_model

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@cache
def autoencoder_run() -> Path:
    """Return the folder of a run that has learned codes of digits for two steps; the same for all
    tests of a process."""
    folder = Path(mkdtemp(prefix="autoencoder-"))
    recipe = tiny_run("fsq_autoencoder", folder)
    recipe["training"] = {"batch_size": 16, "steps": 2}
    return api.train(recipe, runs=folder).folder


def trained_autoencoder() -> TrainedModel:
    """Return what that run has learned."""
    run = Run.open(autoencoder_run())
    processor = load_processor(run.folder / "processor")
    model = build_trained_model(run, run.pick("last"), processor).eval()
    return TrainedModel(str(run.folder), "autoencode", run.recipe.model, model, processor)


def captioned_digits(count: int = 60) -> list[Example]:
    """Return digits with captions."""
    digits = Arrays().examples("train", Path(mkdtemp()))[:count]
    return [
        Example(each.name, each.inputs, f"a {NAMES[int(each.target)]}, written by hand")
        for each in digits
    ]


def picture_tokens(**settings: Any) -> PictureTokens:
    """Return a fitted processor of digits and their captions."""
    config = PictureTokensConfig(
        autoencoder=str(autoencoder_run()), tokenizer={"name": "characters"}, **settings
    )
    return config.fit_with(trained_autoencoder(), lambda: iter(captioned_digits()))


def write_captioned_digits(folder: Path) -> dict[str, Any]:
    """Write digits with captions, and return the section ``data``."""
    examples = captioned_digits()
    for split, own in (("train", examples[:44]), ("validation", examples[44:])):
        rows = [("file_name", "text")]
        for each in own:
            save(folder / "digits" / split / f"{each.name}.png", each.inputs / 16 * 255)
            rows.append((f"{each.name}.png", each.target))
        with (folder / "digits" / split / "metadata.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return {"name": "captioned_images", "path": str(folder / "digits")}


def from_captions_run(
    folder: Path, name: str = "unet", model: dict[str, Any] | None = None, **settings: Any
) -> dict[str, Any]:
    """Return the recipe of a run of 20 steps that makes digits from captions, written to
    ``folder``."""
    encoder = {"name": "transformer_classifier", "layers": 1, "width": 8, "heads": 2}
    recipe = tiny_run(name, folder, {"text": encoder, **(model or {})})
    return recipe | {
        "task": {"name": "generate_images", "condition": "text", **settings},
        "processor": {
            "name": "captioned_pictures",
            "tokenizer": {"name": "characters"},
            "pictures": recipe["processor"],
            "max_tokens": 24,
        },
        "data": write_captioned_digits(folder),
    }


def caption_run(folder: Path, **settings: Any) -> dict[str, Any]:
    """Return the recipe of a run of 20 steps on captioned digits, written to ``folder``."""
    recipe = {
        "name": "captions",
        "model": {
            **{"name": "gpt", "layers": 1, "width": 16, "heads": 2, "context_length": 40},
            "dropout": 0.1,
        },
        "task": {
            **{"name": "text_and_pictures", "max_caption_tokens": 24, "measured": 5},
            **{"candidates": 4, **settings},
        },
        "processor": {
            "name": "picture_tokens",
            "autoencoder": str(autoencoder_run()),
            "tokenizer": {"name": "characters"},
        },
        "data": write_captioned_digits(folder),
        "optim": {"lr": 3e-3, "warmup_steps": 2, **FALLING_AND_CLIPPED},
        "training": {"batch_size": 16, "steps": 20},
        "machine": MACHINE,
    }
    return copy.deepcopy(recipe)
