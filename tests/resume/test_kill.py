"""Train, kill -9, resume, twice in a row: the final weights are those of the run that was never
interrupted."""

from __future__ import annotations

import copy
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
from killing import kill_during_save, kill_while_training, train_in_child, weights_sha256

from groundup.core.seeding import key

STEPS = 24
EAGER = list(
    itertools.product([1, 4], [0, 2], [True, False], [False])
)  # accumulation, workers, packed, compiled
COMPILED = [(1, 0, True, True), (4, 0, False, True)]
CASES = [(*settings, during_save) for settings in EAGER + COMPILED for during_save in (False, True)]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Uninterrupted runs by settings, and the cache that all runs of this module share."""
    folder = tmp_path_factory.mktemp("references")
    return {"folder": folder, "cache": folder / "cache"}


def configure(
    recipe: dict[str, Any],
    corpus: Path,
    folder: Path,
    accumulation: int,
    workers: int,
    packed: bool,
    compiled: bool,
) -> dict[str, Any]:
    stable = folder / "topics.jsonl"
    if not stable.exists():
        shutil.copy(corpus, stable)
    recipe = copy.deepcopy(recipe)
    recipe["data"] |= {"path": str(stable), "packing": {"pack": packed}}
    recipe["training"] = {"batch_size": 8, "steps": STEPS}
    recipe["logging"] = {"every": 1}
    recipe["evaluation"] = {"every": 10, "batches": 1}
    # Half of them are killed while a thread writes, and resumed as if none had.
    recipe["checkpoints"] = {"every": 4, "asynchronous": accumulation > 1}
    recipe["machine"] |= {
        "micro_batch_size": 8 // accumulation,
        "workers": workers,
        "compile": compiled,
    }
    return recipe


def reference(references: dict[str, Any], recipe: dict[str, Any], name: str) -> str:
    if name not in references:
        runs = references["folder"] / name
        process = train_in_child(recipe, runs, references["cache"])
        process.join(300)
        assert process.exitcode == 0
        references[name] = weights_sha256(runs / recipe["name"], STEPS)
    return str(references[name])


@pytest.mark.slow
@pytest.mark.parametrize(("accumulation", "workers", "packed", "compiled", "during_save"), CASES)
def test_killed_twice_and_resumed_is_the_same_run(
    recipe: dict[str, Any],
    corpus: Path,
    tmp_path: Path,
    references: dict[str, Any],
    accumulation: int,
    workers: int,
    packed: bool,
    compiled: bool,
    during_save: bool,
) -> None:
    settings = (accumulation, workers, packed, compiled)
    recipe = configure(recipe, corpus, references["folder"], *settings)
    expected = reference(references, recipe, "-".join(map(str, settings)))
    number = CASES.index((*settings, during_save))
    runs, cache = tmp_path / "runs", references["cache"]
    for attempt in (0, 1):
        drawn = key(7, "kill", number, attempt)
        if during_save:
            kill_during_save(recipe, runs, cache, write=drawn % 4 + 4 * attempt)
        else:
            kill_while_training(
                recipe, runs, cache, 3 + 7 * attempt + drawn % 5, delay_s=(drawn >> 8) % 40 / 1000
            )
        assert not (runs / recipe["name"] / "checkpoints" / f"step-{STEPS:08d}").exists()
    last = train_in_child(recipe, runs, cache)
    last.join(300)
    assert last.exitcode == 0
    assert weights_sha256(runs / recipe["name"], STEPS) == expected
