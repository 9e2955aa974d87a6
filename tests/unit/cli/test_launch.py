"""What ``groundup launch`` refuses, and what it writes instead of starting a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from groundup.cli import main
from groundup.core.errors import GroundupError, RecipeError
from groundup.recipe.recipe import dump_recipe, load_recipe


@pytest.fixture
def small(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    text = dump_recipe(load_recipe(recipe | {"name": "small"}))
    Path("small.yaml").write_text(text, encoding="utf-8")
    return "small.yaml"


def launch(*arguments: str) -> str:
    command = ["launch", *arguments]
    done = CliRunner().invoke(main.app, command, catch_exceptions=False, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def test_a_job_file_is_named_after_its_run(small: str) -> None:
    more = ("--to", "kubernetes", "--job", "image=mine", "--job", "volume=work:/work")
    assert launch(small, "--nproc", "8", *more) == "Wrote small-kubernetes.yaml\n"
    assert launch(small, "--nproc", "8", "--to", "slurm") == "Wrote small.sbatch\n"
    with pytest.raises(RecipeError, match=r"small.sbatch: exists already and was not touched"):
        launch(small, "--nproc", "8", "--to", "slurm")
    out = ("--out", "jobs/it.sbatch", "--job", "time=1:00:00")
    assert (
        launch(small, "seed=3", "--nproc", "8", "--to", "slurm", *out) == "Wrote jobs/it.sbatch\n"
    )
    text = Path("jobs/it.sbatch").read_text(encoding="utf-8")
    assert "groundup launch small.yaml seed=3 --nproc 8" in text
    assert "#SBATCH --time=1:00:00\n" in text


def test_costs_are_shown_as_json(small: str) -> None:
    model = ("model={name: gpt, vocabulary_size: 64}", "task=language_modeling")
    data = (
        "processor=bytes",
        "data={name: text, path: texts}",
        "training={batch_size: 8, steps: 2}",
    )
    said = launch(small, *model, *data, "--dry-run", "--devices", "2xA100")
    plan = json.loads(said)
    assert (plan["name"], plan["devices"]) == ("small", "2 x A100")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), r"groundup launch: needs --nproc. Give --nproc N: one a GPU"),
        (("--nproc", "2", "--job", "a=b"), r"--job: has no effect without --to. Remove it"),
        (("--nproc", "2", "--out", "a"), r"--out: has no effect without --to. Remove it"),
        (
            ("--nproc", "2", "--to", "slurm", "--rendezvous", "a:1"),
            r"--rendezvous: has no effect without starting the run, which --to does not. Remove it",
        ),
        (("--dry-run",), r"--dry-run: needs --devices. Give for example --devices 8xH100"),
        (("--nproc", "2", "--devices", "H100"), r"--devices: has no effect without --dry-run"),
        (
            ("--dry-run", "--devices", "H100", "--to", "slurm"),
            r"--to: has no effect without starting the run, which --dry-run does not. Remove it",
        ),
        (("--nproc", "2", "--to", "cloud"), r"--to: 'cloud' is unknown; allowed: slurm, kub"),
        (("--nproc", "2", "--to", "slurm", "--job", "x"), r"x: is not of the form key=value"),
    ],
)
def test_options_that_do_not_go_together(small: str, options: tuple[str, ...], said: str) -> None:
    with pytest.raises(GroundupError, match=said):
        launch(small, *options)
