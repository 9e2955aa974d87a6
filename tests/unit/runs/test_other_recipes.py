"""Whether a recipe is that of a run that is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from groundup.recipe.adapter import Adapter
from groundup.recipe.recipe import as_dict
from groundup.runs.run import Run

SAVED = Path(__file__).parents[2] / "saved_runs" / "language-model"
ASKED: list[dict[str, Any]] = [{}, {"targets": {"query": 8}}, {"targets": ("query",)}]


@pytest.mark.parametrize("asked", ASKED)
def test_targets_that_were_settled_are_no_difference(tmp_path: Path, asked: dict[str, Any]) -> None:
    run = Run.open(Path(shutil.copytree(SAVED, tmp_path / "run")))
    wanted = run.recipe.model_copy(update={"adapter": Adapter(path="peft_folder", **asked)})
    targets = {"blocks.0.attention.query": 8, "blocks.1.attention.query": 8}
    settled = Adapter(path="peft_folder", alpha=3, targets=targets)
    run.write_json("requested.json", as_dict(wanted))
    begun = Run(run.folder, run.recipe.model_copy(update={"adapter": settled}))
    assert begun.differences(wanted) == {}
    other = wanted.model_copy(update={"adapter": Adapter(path="peft_folder", targets=("value",))})
    assert "adapter.targets" in begun.differences(other)
    assert begun.differences(run.recipe)
    # Without what was asked for, what was settled is all there is to compare with.
    (run.folder / "requested.json").unlink()
    assert begun.differences(run.recipe)
    assert begun.differences(begun.recipe) == {}
