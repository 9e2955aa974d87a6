"""The table of docs/parallel.md is what runs do: each feature under each axis gives the losses of one
process, or is refused in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import layout_features
import pytest
from launched import rows

from groundup import api
from groundup.export.export_run import export_run
from groundup.parallel.layout import AXES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent


def _free_ports(number: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        # All at once, so that no two are the same.
        opened = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in opened:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in opened]


def _try_features(folder: Path, axis: str) -> dict[str, str]:
    """Train every feature on two processes, and return the words with which it was refused; empty
    where it was not."""
    ports = _free_ports(len(layout_features.FEATURES))
    about = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    paths = [str(ROOT / "tests" / "support"), *filter(None, [os.environ.get("PYTHONPATH")])]
    started = [
        subprocess.Popen(
            [sys.executable, layout_features.__file__, str(folder), axis, *ports],
            env=os.environ
            | about
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
            | {"PYTHONPATH": os.pathsep.join(paths)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [each.communicate(timeout=300)[1] for each in started]
    assert [each.returncode for each in started] == [0, 0], "\n".join(said)
    found: dict[str, str] = json.loads((folder / f"{axis}.json").read_text(encoding="utf-8"))
    return found


def _documented(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, its first row left out."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").split(heading)[1]
    lines = re.findall(r"^\|(.*)\|$", text.split("\n## ")[0], re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def _use_on_one_process(shared: Path, alone: Path) -> None:
    """Make sure that a run of several processes is evaluated, reported and exported as one of one
    process is."""
    found = api.evaluate([shared, alone])
    one, two = (each["evaluation"]["metrics"]["loss"] for each in found["runs"])
    assert one == pytest.approx(two, rel=1e-4)
    assert Path(found["report"]).is_file()
    # What is written is opened again, and compared with the run.
    export_run(shared, "huggingface", out=shared / "exported")


def test_every_feature_under_every_axis(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    base = layout_features.train_base(tmp_path / "data")
    base.rename(tmp_path / "base")
    recipes = layout_features.recipes_of(tmp_path / "data", tmp_path / "base")
    for number, recipe in enumerate(recipes.values()):
        api.train(recipe | {"name": f"alone-{number}"}, runs=tmp_path / "runs")
    table = {feature: [feature] for feature in recipes}
    for axis in AXES:
        refused = _try_features(tmp_path, axis)
        for number, feature in enumerate(recipes):
            if refused[feature]:
                assert "recipe." in refused[feature], (axis, feature)
                table[feature].append("refused")
                continue
            alone, shared = (
                rows(tmp_path / "runs" / f"{kind}-{number}", "train") for kind in ("alone", axis)
            )
            assert [row["loss"] for row in shared] == pytest.approx(
                [row["loss"] for row in alone], rel=1e-4
            ), (axis, feature)
            table[feature].append("yes")
        print(axis, json.dumps(refused, indent=1))
        if not refused["a model from nothing"]:
            _use_on_one_process(tmp_path / "runs" / f"{axis}-0", tmp_path / "runs" / "alone-0")
    print("\n".join("| " + " | ".join(row) + " |" for row in table.values()))
    assert list(table.values()) == _documented("parallel.md", "## What works along which axis")
    translated = _documented("parallel.zh.md", "## 哪些功能在哪个轴上可用")
    assert [
        [{"可用": "yes", "拒绝": "refused"}[cell] for cell in row[1:]] for row in translated
    ] == [row[1:] for row in table.values()]
