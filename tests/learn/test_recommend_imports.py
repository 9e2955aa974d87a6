"""Which modules are imported together: a recommender of sequences beats EASE and, by a
fifth, popularity, both fitted to the same files."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup import api

pytestmark = pytest.mark.slow
RECIPE = Path(__file__).parents[2] / "recipes" / "demo" / "recommend.yaml"


def test_imports_beat_ease_and_popularity(tmp_path: Path) -> None:
    changes = {"machine.threads": 1, "evaluation.every": 400}
    run = api.train(RECIPE, changes, runs=tmp_path)
    metrics = api.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    assert metrics["ndcg_at_10"] > metrics["baseline_ease_ndcg_at_10"]
    assert metrics["ndcg_at_10"] > 1.2 * metrics["baseline_popularity_ndcg_at_10"]
