"""The run of docs/extending.md whose examples its own weights make, as a user would write it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

__all__ = ["guessing_run"]

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
BLOCK = re.compile(r"^```\w+\n# (my_guesses\.(?:py|yaml))\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def guessing_run(folder: Path) -> dict[str, Any]:
    """Write the page's files into a folder and return its recipe, a few steps long."""
    for name, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        (folder / name).write_text(code, encoding="utf-8")
    recipe: dict[str, Any] = yaml.safe_load((folder / "my_guesses.yaml").read_text("utf-8"))
    return recipe | {
        "uses": [str(folder / "my_guesses.py")],
        "training": {"batch_size": 32, "steps": 9},
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
    }
