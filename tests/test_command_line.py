"""What users' scripts depend on: the verbs of the command line, and how quickly it starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parent.parent
COMMAND_LINE = {
    "new": "PATH --kind --data --label",
    "train": "[ARGUMENTS] --dry-run --resume --runs",
    "launch": "ARGUMENTS --nproc --nnodes --rendezvous --restarts --runs --to --job --out --dry-run --devices",
    "tune": "RECIPE [OVERRIDES] --lr-range --workers --storage --runs",
    "evaluate": "FOLDERS --data --checkpoint --limit --again",
    "predict": (
        "RUN [PROMPTS] --out --force --limit --on-unreadable --checkpoint --adapter"
        " --max-new-tokens --temperature --top-k --top-p --min-p --repetition-penalty --stop"
        " --beams --n-best --length-penalty --early-stopping --min-new-tokens --no-repeat-ngram"
        " --ngram-weight --length-bonus --count --steps --guidance --sampler --user --k --seed --weights --engine"
    ),
    "chat": "RUN --checkpoint --max-new-tokens --temperature --top-p --seed --weights --engine",
    "play": "RUN --against --second --simulations --games --checkpoint --seed",
    "export": "RUN --to --dtype --out --checkpoint --tolerance",
    "merge": "ADAPTERS --weights --out",
    "data inspect": "RECIPE [OVERRIDES] --examples --limit",
    "data prepare": "RECIPE [OVERRIDES] --part --join --to",
    "runs list": "--runs",
    "runs compare": "FOLDERS",
    "schema": "",
    "env": "",
}


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            words = [_word(parameter) for parameter in command.params]
            yield " ".join((*path, name)), " ".join(words)


def _word(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        return str(parameter.opts[0])
    return str(parameter.name).upper() if parameter.required else f"[{str(parameter.name).upper()}]"


def test_the_command_line_is_frozen() -> None:
    """Users' scripts depend on it: what is renamed or removed here breaks them."""
    from groundup.cli.main import app

    group = typer.main.get_command(app)
    assert dict(_commands(group)) == COMMAND_LINE
    assert [_word(parameter) for parameter in group.params if parameter.name != "help"] == [
        "--debug",
        "--version",
        "--install-completion",
        "--show-completion",
    ]


@pytest.mark.parametrize("arguments", [["-c", "import groundup"], ["-m", "groundup", "--help"]])
def test_starting_does_not_import_torch(arguments: list[str]) -> None:
    assert find_spec("torch") is not None
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "groundup" in imported
    assert not imported & {"torch", "numpy", "transformers"}
