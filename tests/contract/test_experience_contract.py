"""What a run must keep whose examples are made by its own weights: the page's own example."""

from __future__ import annotations

from pathlib import Path

import pytest
from guesses import guessing_run
from own_parts import forget_own_parts

from groundup.testing import check_data, check_task

pytestmark = pytest.mark.slow


def test_its_data_and_task_keep_the_contracts(tmp_path: Path) -> None:
    with forget_own_parts():
        recipe = guessing_run(tmp_path)
        check_data(recipe)
        check_task(recipe)
