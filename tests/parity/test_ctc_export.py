"""Models of frames go out to ONNX, where another program computes the same, whatever the length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import tiny_run

from groundup import api
from groundup.core.errors import CheckpointError
from groundup.export.export_run import export_run

BLOCKS: dict[str, dict[str, Any]] = {
    "bilstm": {},
    "transformer": {"blocks": "transformer", "heads": 2, "width": 16},
    "conformer": {"blocks": "conformer", "heads": 2, "width": 16, "kernel": 5},
}


@pytest.mark.slow
@pytest.mark.parametrize("blocks", BLOCKS)
def test_onnxruntime_computes_what_was_trained(blocks: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    recipe = tiny_run("ctc", tmp_path, BLOCKS[blocks])
    run = api.train({**recipe, "training": {"batch_size": 16, "steps": 2}}, runs=tmp_path / "runs")
    folder = export_run(run.folder, "onnx", out=tmp_path / "onnx")
    assert (folder / "processor.json").is_file()
    session = runtime.InferenceSession(str(folder / "model.onnx"))
    model = api.load(run.folder).model.eval()
    # Lengths that are none of those it was written with.
    frames = torch.randn(4, 51, 8)
    lengths = torch.tensor([51, 7, 1, 30])
    with torch.no_grad():
        wanted = model(frames, lengths)
    given = {"inputs": frames.numpy(), "lengths": lengths.numpy()}
    (found,) = session.run(None, given)
    kept = model.output_lengths(lengths).tolist()
    for row, length in enumerate(kept):
        np.testing.assert_allclose(found[row, :length], wanted[row, :length], atol=1e-4)


@pytest.mark.slow
def test_no_other_format_has_a_place_for_it(tmp_path: Path) -> None:
    recipe = tiny_run("ctc", tmp_path)
    run = api.train({**recipe, "training": {"batch_size": 16, "steps": 1}}, runs=tmp_path / "runs")
    with pytest.raises(CheckpointError, match="no Hugging Face layout is known for it"):
        export_run(run.folder, "huggingface", out=tmp_path / "out")
    with pytest.raises(CheckpointError):
        export_run(run.folder, "gguf", out=tmp_path / "out")
