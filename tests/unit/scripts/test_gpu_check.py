"""The script that tries the project on a GPU works from end to end; without one it says so."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parents[3] / "scripts" / "gpu_check.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module; what it puts in the way of imports is taken back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_works_from_end_to_end_from_any_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--device", "cpu", "--quick", "--out", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*-gpu-check-cpu.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["torch"] == torch.__version__
    assert {name: each["outcome"] for name, each in found["checks"].items()} == dict.fromkeys(
        ("models", "contracts", "resume", "qlora", "training", "decoding"), "passed"
    )
    assert found["checks"]["training"]["eager"]["tokens_per_s"] > 0
    assert found["checks"]["models"]["largest_relative_difference_of_losses"]["gpt"] == 0
    assert set(found["checks"]["decoding"]) > {"float32_rows_1", "bfloat16_rows_2"}


def test_without_a_gpu_it_says_so(
    script: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main([]) == 2
    assert "there is no CUDA device here" in capsys.readouterr().out


def test_it_names_the_wheels_to_bring(
    script: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert script.missing_wheels() == []
    there = importlib.util.find_spec
    gone = ("tokenizers", "yaml")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in gone else there(name)
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    script.main([])
    shown = capsys.readouterr().out
    assert "pip download --only-binary :all: --no-deps 'pyyaml>=6,<7' 'tokenizers>=" in shown


def test_a_check_that_fails_stops_no_other(script: Any, tmp_path: Path) -> None:
    def fail(device: str, quick: bool, folder: Path) -> dict[str, Any]:
        raise ValueError(f"{device} {quick} {folder.is_dir()}")

    script.CHECKS = {"one": fail, "other": lambda *given: {"number": 3}}
    found = script.run_checks("cpu", ["one", "other"], True, 60.0)
    assert found["one"]["outcome"] == "failed"
    assert found["one"]["problem"] == "ValueError: cpu True True"
    assert found["other"]["outcome"] == "passed"
    assert found["other"]["number"] == 3
    left_out = script.run_checks("cpu", ["other"], True, -1.0)
    assert left_out["other"]["outcome"] == "left out"


def test_peaks_are_found_by_the_name_of_the_device(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert script.peak_of("cuda") == 989e12
    monkeypatch.setattr(script, "device_name", lambda device: "NVIDIA L40S")
    assert script.peak_of("cuda") == 362e12
    monkeypatch.setattr(script, "device_name", lambda device: "CPU")
    assert script.peak_of("cpu") is None
