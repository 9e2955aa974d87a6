"""Detectors with queries find everything in a few pictures that they have learned by heart: boxes
are matched with the queries that come to find them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from groundup import api

pytestmark = pytest.mark.slow
pytest.importorskip("scipy")

TRUNK = {"name": "resnet", "layers": [1, 1, 1], "width": 16, "stem": "small", "stem_pool": True}
MODELS: dict[str, tuple[int, dict[str, Any]]] = {
    "detr": (
        300,
        {"width": 64, "heads": 4, "mlp_width": 128, "encoder_layers": 1, "dropout": 0.0},
    ),
    "rt_detr": (
        150,
        {"maps": 2, "encoder_width": 48, "width": 48, "encoder_mlp_width": 96, "mlp_width": 96},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_few_pictures_are_learned_by_heart(name: str, tmp_path: Path) -> None:
    steps, settings = MODELS[name]
    model = {"name": name, "backbone": TRUNK, "queries": 12, "decoder_layers": 2, **settings}
    recipe = {
        "name": name,
        "model": model,
        "task": {"name": "detect", "measured": 0},
        "processor": "image",
        "data": {
            "name": "digit_scenes",
            "pictures": 8,
            "held_out": 4,
            "tested": 0,
            "size": 48,
            "digits": [0, 3],
            "digit_size": [14, 24],
        },
        "training": {"batch_size": 8, "steps": steps},
        "optim": {"lr": 1e-3, "warmup_steps": 20, "clip_norm": 1.0, "weight_decay": 0.0},
        "evaluation": {"every": steps},
        "machine": {"precision": "fp32", "compile": False, "threads": 1},
    }
    trainer = api.trainer(recipe, runs=tmp_path)
    task: Any = trainer.task
    examples = trainer.parts.source.examples("train", tmp_path)
    processor = trainer.parts.processor
    before = task.measure(trainer.model.eval(), examples, processor)["map_50"]
    trainer.fit()
    trainer.close()
    found = task.measure(trainer.model.eval(), examples, processor)
    print(name, before, found)
    assert before < 0.2
    assert found["map_50"] >= 0.9, found
