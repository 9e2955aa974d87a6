"""Steps that are recorded write the texts that steps of their own write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.generation import beam_search as beams
from groundup.generation import decoding, recorded_steps
from groundup.generation.options import DecodingOptions
from groundup.generation.recompute_cache import WithoutCache
from groundup.generation.recorded_steps import RecordedSteps, reader_of
from groundup.models.gpt import GPTConfig

PROMPTS = [[1, 2, 3], [4], [5, 6]]
Step = Callable[[], Tensor]


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    shape = {"layers": 2, "width": 16, "heads": 2, "context_length": 64, "vocabulary_size": 12}
    return GPTConfig(**shape, init_std=0.5).build().eval()


class _Recorder:
    """Runs a step in place of a recording of it, with the tensors that were there."""

    def __init__(self) -> None:
        self.recordings = 0
        self.replays = 0

    def __call__(self, step: Step) -> Step:
        self.recordings += 1
        step()

        def replay() -> Tensor:
            self.replays += 1
            return step()

        return replay


def _recording(monkeypatch: pytest.MonkeyPatch, recorder: Any, slots: int = 8) -> None:
    monkeypatch.setattr(recorded_steps, "_SLOTS", slots)
    for module in (decoding, beams):
        monkeypatch.setattr(module, "reader_of", lambda model: RecordedSteps(model, recorder))


def _generate(model: Any, **options: Any) -> list[list[int]]:
    chosen = DecodingOptions(**{"max_new_tokens": 40, "temperature": 0.0, **options})
    return decoding.generate_batch(model, PROMPTS, chosen, stop_ids=[7])


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 3}, {"max_new_tokens": 62}])
def test_texts_are_those_without_a_recording(
    model: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    wanted = _generate(model, **options)
    recorder = _Recorder()
    _recording(monkeypatch, recorder)
    assert _generate(model, **options) == wanted
    # some for the slots in use, which grow, and for the rows that are left
    assert 1 <= recorder.recordings < recorder.replays


def test_beams_are_those_without_a_recording(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options = DecodingOptions(max_new_tokens=30, temperature=0.0, beams=3)
    wanted = beams.beam_search(model, PROMPTS, options, stop_ids=[7])
    recorder = _Recorder()
    _recording(monkeypatch, recorder)
    found = beams.beam_search(model, PROMPTS, options, stop_ids=[7])
    assert [[each.tokens for each in row] for row in found] == [
        [each.tokens for each in row] for row in wanted
    ]
    assert recorder.replays > 0


def test_what_cannot_be_recorded_runs_as_before(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = _generate(model)
    tried = []

    def refuse(step: Step) -> Step:
        tried.append(step)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    _recording(monkeypatch, refuse)
    with caplog.at_level("INFO"):
        assert _generate(model) == wanted
    assert len(tried) == 1
    assert "cannot be recorded: operation not permitted when stream is capturing" in caplog.text
    assert "and more" not in caplog.text


def test_models_on_a_processor_are_left_alone(model: Any) -> None:
    assert reader_of(model) is model
    alone = torch.nn.Linear(2, 2)
    alone.config = model.config
    assert isinstance(reader_of(alone), WithoutCache)


def test_a_cache_that_is_read_to_a_number_of_slots_reserves_nothing(model: Any) -> None:
    cache = model.new_cache(1, 16)
    cache.reserve(torch.tensor([[3]]))
    with cache.reading(8):
        cache.reserve(torch.tensor([[12]]))
        assert cache.used == 8
    assert cache.used == 4
