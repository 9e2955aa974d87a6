"""The command that is proposed after an evaluation fits what the run predicts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from groundup.core.registry import lookup
from groundup.inference.evaluate_run import next_command


@pytest.mark.parametrize(
    ("task", "processor", "expected"),
    [
        ("classify", "image", "groundup predict runs/a picture.png"),
        ("generate_images", "image", "groundup predict runs/a CLASS --out made.png"),
        (
            "generate_images",
            "captioned_pictures",
            "groundup predict runs/a 'a red hat' --out made.png",
        ),
        (
            "text_and_pictures",
            "picture_tokens",
            "groundup predict runs/a 'a red hat' --out drawn.png",
        ),
        ("chat", "bytes", "groundup chat runs/a"),
        ("language_modeling", "bytes", "groundup predict runs/a 'Once'"),
        ("classify", "frames", "groundup runs compare runs/a another_run"),
    ],
)
def test_it_fits_the_task_and_the_processor(task: str, processor: str, expected: str) -> None:
    recipe = SimpleNamespace(
        task=lookup("task", task)(),
        processor=SimpleNamespace(registered_name=processor),
    )
    run: Any = SimpleNamespace(folder=Path("runs/a"), recipe=recipe)
    assert next_command(run) == expected
