"""Games in a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from self_playing import self_play_run
from typer.testing import CliRunner

import groundup
from groundup.cli.main import app
from groundup.core.errors import GroundupError, RunError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return groundup.train(self_play_run(), runs=folder).folder


def play(run: Path, *arguments: str, typed: str = "") -> str:
    found = CliRunner().invoke(app, ["play", str(run), *arguments], input=typed)
    if isinstance(found.exception, GroundupError):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.output


def test_a_person_plays(run: Path) -> None:
    shown = play(run, "--simulations", "2", typed="b2\nb2\n?\n/new\n\n")
    # Long paths are wrapped.
    assert "plays tic_tac_toe" in " ".join(shown.split())
    assert "It plays" in shown
    assert "the move: is b2, but legal are" in shown
    assert "It would play:" in shown
    begun = play(run, "--second", "--simulations", "0", typed="\n")
    assert begun.index("It plays") < begun.index("Your move")


def test_a_run_plays_others(run: Path) -> None:
    assert "Of 2 games it won" in play(run, "--against", "random")
    assert "against 5" in play(run, "--against", "5", "--games", "3")
    assert "Of 2 games" in play(run, "--against", str(run))


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(GroundupError, match="is nobody; allowed: random, a number"):
        play(run, "--against", "nobody")
    with pytest.raises(GroundupError, match="--games: has no effect without --against"):
        play(run, "--games", "3")
    with pytest.raises(GroundupError, match="--second: has no effect with --against"):
        play(run, "--second", "--against", "random")
    classifier = {
        "name": "other",
        "model": {"name": "mlp", "hidden": [4]},
        "task": "classify",
        "processor": "image",
        "data": "arrays",
        "training": {"batch_size": 32, "steps": 1},
    }
    other = groundup.train(classifier, runs=tmp_path).folder
    with pytest.raises(RunError, match="is of task classify, which plays no games"):
        play(other)
