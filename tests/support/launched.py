"""Runs on several processes, started as a user starts them."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import load_file

from groundup.recipe.yaml import dump_yaml

COMMAND = (sys.executable, "-m", "groundup")


def write_recipe(folder: Path, recipe: dict[str, Any]) -> Path:
    """Write a recipe to a file of its name."""
    path = folder / f"{recipe['name']}.yaml"
    path.write_text(dump_yaml(recipe), encoding="utf-8")
    return path


def launch(
    folder: Path, processes: int, *arguments: str | Path, restarts: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run ``groundup launch`` in a folder, and return what it said."""
    return subprocess.run(
        command(processes, *arguments, restarts=restarts),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )


def command(processes: int, *arguments: str | Path, restarts: int = 0) -> list[str]:
    """Return the command that starts so many processes."""
    start = ["launch", "--nproc", str(processes), "--restarts", str(restarts)]
    return [*COMMAND, *start, *map(str, arguments)]


def rows(run: Path, kind: str) -> list[dict[str, Any]]:
    """Return the rows of a kind in the metrics of a run."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def weights_digest(run: Path, step: int) -> str:
    """Return the SHA-256 of the weights of a step, in however many files they are."""
    tensors = {}
    for path in (run / "checkpoints" / f"step-{step:08d}").glob("model*.safetensors"):
        tensors |= load_file(path)
    assert tensors, f"{run} has no checkpoint of step {step}"
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()


def ranks_of(launcher: int) -> dict[int, int]:
    """Return the processes that a launcher has started, by rank."""
    found = {}
    for child in psutil.Process(launcher).children(recursive=True):
        try:
            environment = child.environ()
        except psutil.Error:
            continue
        if "RANK" in environment and "train" in child.cmdline():
            found[int(environment["RANK"])] = child.pid
    return found


def said_by_ranks(error: str) -> list[str]:
    """Return the sentences with which processes ended."""
    return re.findall(r"^rank \d.*$", error, flags=re.MULTILINE)
