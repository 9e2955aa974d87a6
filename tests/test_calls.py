"""How calls go, from a recipe's file to the first gradient: down through the rooms, and not back up."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml
from test_architecture import PLUGINS, TIER
from tiny_runs import tiny_run

from groundup import api
from groundup.recipe.recipe import load_recipe


def module_in(frame: FrameType | None) -> str:
    """Return which module of the package a frame is of; empty: none."""
    name = str(frame.f_globals.get("__name__")) if frame else ""
    return name.removeprefix("groundup.") if name.startswith("groundup.") else ""


def tier_of(module: str) -> int:
    return TIER[module.split(".")[0]]


@contextmanager
def watched_calls(climbs: set[str], returns: set[str]) -> Iterator[None]:
    """Collect calls from one module of the package straight to another: those that go to a higher
    tier, and those that come back to a module which waits for them."""

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        own = module_in(frame)
        caller = module_in(frame.f_back)
        # What a library calls, such as pydantic a validator, is no call of the package's.
        if event != "call" or not own or not caller or own == caller:
            return
        call = f"{caller} -> {own} ({frame.f_code.co_qualname})"
        if tier_of(own) > tier_of(caller):
            climbs.add(call)
        waiting = frame.f_back
        while module_in(waiting):
            if module_in(waiting) == own:
                returns.add(call)
            assert waiting is not None
            waiting = waiting.f_back

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    sections = json.loads(json.dumps(tiny_run("gpt", tmp_path)))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return path


def test_loading_a_recipe_visits_each_module_once(recipe_file: Path) -> None:
    climbs: set[str] = set()
    returns: set[str] = set()
    with watched_calls(climbs, returns):
        load_recipe(recipe_file)
    assert climbs == set()
    assert returns == set()


@pytest.mark.slow
def test_from_the_recipe_to_the_gradient_no_call_climbs(recipe_file: Path, tmp_path: Path) -> None:
    """But to plugins, by the contracts that they fill in: a task's forward asks its own inputs, a
    decoder the settings it was built from."""
    climbs: set[str] = set()
    with watched_calls(climbs, set()):
        trainer = api.trainer(recipe_file, runs=tmp_path / "runs")
        next(trainer.steps())
    trainer.close()
    reached = {call.split(" -> ")[1].split(" ")[0] for call in climbs}
    assert {tier_of(module) for module in reached} <= {PLUGINS}, climbs
