"""A training run that other programs slow down logs it."""

from __future__ import annotations

from typing import Any

import pytest

from groundup import api
from groundup.machine.contention import ContentionWatch


@pytest.mark.slow
def test_a_run_logs_that_it_is_slowed(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = "other programs take 1.0 of 2 cores"
    monkeypatch.setattr(ContentionWatch, "check", lambda self: words)
    api.train(recipe)
    assert words in [record.message for record in caplog.records if record.levelname == "WARNING"]
