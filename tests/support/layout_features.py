"""What is tried under each layout of processes, and the program that one of the processes runs.

Run ``python layout_features.py FOLDER AXIS PORT...`` as each process of a world: it trains every
feature in turn with ``parallel.AXIS`` of all processes, which meet at a port of its own for each,
and writes what became of it.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist
from rewarded import rewarded_run
from tiny_runs import preference_run, tiny_run, without_chance

from groundup import api
from groundup.core.errors import GroundupError
from groundup.parallel import world

__all__ = ["FEATURES", "recipes_of", "train_base"]

FEATURES = (
    "a model from nothing",
    "samples while it trains",
    "averages of weights",
    "Muon",
    "going on from a run's weights",
    "LoRA",
    "LoRA on a quantized base",
    "a teacher",
    "preferences",
    "rewards",
)
_STEPS = 4


def train_base(folder: Path) -> Path:
    """Train the run that others begin from, on one process, and return its folder."""
    return api.train(_gpt(folder) | {"name": "base"}, runs=folder / "runs").folder


def recipes_of(folder: Path, base: Path) -> dict[str, dict[str, Any]]:
    """Return a recipe of a few steps for each feature; files of data are written to ``folder``."""
    gpt = _gpt(folder)
    begun = {name: part for name, part in gpt.items() if name not in ("model", "processor")}
    begun["init"] = {"run": str(base)}
    without_processor = {name: part for name, part in gpt.items() if name != "processor"}
    preferences = _short(without_chance(preference_run(folder)))
    recipes = [
        gpt,
        gpt | {"samples": {"every": 2, "prompts": ["."]}},
        gpt | {"optim": gpt["optim"] | {"average": "ema", "ema_decay": 0.5}},
        gpt | {"optim": gpt["optim"] | {"name": "muon"}},
        begun,
        begun | {"adapter": {"name": "lora", "rank": 2}},
        begun | {"adapter": {"name": "lora", "rank": 2, "base": "nf4"}},
        without_processor | {"distill": {"teacher": str(base)}},
        preferences,
        _short(rewarded_run(folder)),
    ]
    return dict(zip(FEATURES, recipes, strict=True))


def _gpt(folder: Path) -> dict[str, Any]:
    shape = {"layers": 2, "kv_heads": 2}
    return _short(without_chance(tiny_run("gpt", folder, shape)))


def _short(recipe: dict[str, Any]) -> dict[str, Any]:
    machine = recipe["machine"] | {"micro_batch_size": 2}
    optim = recipe["optim"] | {"schedule": "constant"}
    training = {"batch_size": 8, "steps": _STEPS}
    return recipe | {
        **{"machine": machine, "optim": optim, "training": training},
        **{"logging": {"every": 1}, "evaluation": {"every": _STEPS}},
    }


def _try(recipe: dict[str, Any], folder: Path) -> str:
    """Return the words with which a recipe is refused; empty where it is trained."""
    try:
        api.train(recipe, runs=folder / "runs")
        said = ""
    except GroundupError as error:
        said = str(error)
        print(f"{recipe['name']} of rank {world.join(60, 'cpu').rank}: {said}", file=sys.stderr)
    return said


def _part() -> None:
    """Forget the other processes, which have been told that this one ends."""
    for each in world._joined:
        assert each._absences is not None
        each._absences.close()
        atexit.unregister(each._absences.close)
    world._joined.clear()
    dist.destroy_process_group()
    atexit.unregister(dist.destroy_process_group)


def main(folder: Path, axis: str, ports: list[str]) -> None:
    """Train every feature, and let the first process write ``AXIS.json``."""
    found = {}
    for number, (name, recipe) in enumerate(recipes_of(folder / "data", folder / "base").items()):
        own = recipe | {"name": f"{axis}-{number}", "parallel": {axis: 2, "timeout_s": 60}}
        os.environ["MASTER_PORT"] = ports[number]
        found[name] = _try(own, folder)
        _part()
    if os.environ["RANK"] == "0":
        (folder / f"{axis}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
