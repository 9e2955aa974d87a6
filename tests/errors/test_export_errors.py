"""Messages about exports: what cannot be written, and what the other tool says no to. The tools are
stood in for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ggufs import write_small
from tiny_runs import tiny_run
from torch import Tensor, nn

import groundup
from groundup.core.errors import CheckpointError, RunError
from groundup.core.storage import Storage
from groundup.export import export_run, gguf, huggingface, onnx
from groundup.export.formats import EXPORTERS
from groundup.export.verify import Reader, Sample, first_difference
from groundup.runs.run import Run
from groundup.weights.gguf import read_gguf_processor
from groundup.weights.model_folder import write_model_folder

AS_IT_WAS = "Nothing was exported, and the run is as it was"
SAMPLE = Sample({"tokens": torch.zeros(2, 3, dtype=torch.long)})


class _Full(Storage):
    """A disk without space."""

    def write_bytes(self, path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("exported")
    recipe = tiny_run("mlp", folder)
    return groundup.train({**recipe, "training": {"batch_size": 16, "steps": 1}}, runs=folder)


# ----------------------------------------------------------------------------------------- the disk
def test_a_full_disk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {
        path: path.read_bytes() for path in (run.folder / "model").rglob("*") if path.is_file()
    }
    with pytest.raises(
        CheckpointError,
        match=r"model: could not be written: No space left on device; the run's check",
    ):
        write_model_folder(Run(run.folder, run.recipe, _Full()))
    assert all(path.read_bytes() == content for path, content in whole.items())

    def full(job: Any) -> None:
        (job.folder / "model.onnx").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "require_onnx", lambda: None)
    monkeypatch.setitem(export_run.EXPORTERS, "onnx", full)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / export_run.RECORD).write_text("{}")
    expected = (
        r"out: could not be written: No space left on device\. Free some space, or choose another"
        r" --out"
    )
    with pytest.raises(CheckpointError, match=expected):
        export_run.export_run(run.folder, "onnx", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [export_run.RECORD]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prompts": 0},
            r"prompts: is 0; allowed: 1 or more\. Without it nothing would be compared",
        ),
        ({"new_tokens": -1}, r"new_tokens: is -1; allowed: 1 or more"),
        (
            {"tolerance": float("nan")},
            r"--tolerance: is nan; allowed: a number from 0 on\. Leave it out for 1e-4",
        ),
        ({"tolerance": -0.1}, r"--tolerance: is -0\.1; allowed"),
        ({"tolerance": float("inf")}, r"--tolerance: is inf; allowed"),
    ],
)
def test_numbers_with_which_nothing_is_compared(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "require_onnx", lambda: None)
    with pytest.raises(RunError, match=message):
        export_run.export_run("nowhere", "onnx", **options)


# --------------------------------------------------------------------------------------------- ONNX
class _Branches(nn.Module):
    """A model that a graph has no place for."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.float() if bool(tokens.sum() > 0) else -tokens.float()


BRANCHES = (
    r"model: torch\.export cannot write _Branches: Could not guard.*\. Nothing was .*A graph has no"
    r" branches that"
)


@pytest.mark.slow
def test_a_model_that_is_no_graph(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=BRANCHES):
        onnx.write_graph(tmp_path / "a.onnx", _Branches(), SAMPLE, sequences=True)


def test_what_torch_export_does_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("failed") from ValueError(
            "\n  Could not guard on data-dependent expression\nmore"
        )

    dimensions = [SimpleNamespace(dim_param=name) for name in ("batch", "")]
    value = SimpleNamespace(name="tokens", type=SimpleNamespace(tensor_type=SimpleNamespace()))
    value.type.tensor_type.shape = SimpleNamespace(dim=dimensions)
    library = SimpleNamespace(
        load=lambda *_, **__: SimpleNamespace(graph=SimpleNamespace(input=[value]))
    )
    monkeypatch.setattr(onnx, "require_onnx", lambda: (library, None))
    monkeypatch.setattr(torch.onnx, "export", refused)
    with pytest.raises(CheckpointError, match=BRANCHES):
        onnx.write_graph(tmp_path / "a.onnx", _Branches(), SAMPLE, sequences=True)
    monkeypatch.setattr(
        torch.onnx, "export", lambda *_, **__: SimpleNamespace(save=lambda path: None)
    )
    with pytest.raises(
        CheckpointError,
        match=r"torch\.export fixes the length of tokens, which must be free\. Nothing",
    ):
        onnx.write_graph(tmp_path / "a.onnx", _Branches(), SAMPLE, sequences=True)
    onnx.write_graph(tmp_path / "a.onnx", _Branches(), SAMPLE, sequences=False)


def test_what_onnxruntime_does_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, path: str, *_: Any, **__: Any) -> None:
            if "bad" in path:
                raise RuntimeError("Protobuf parsing failed")

        def get_inputs(self) -> list[Any]:
            return [SimpleNamespace(name="tokens")]

        def run(self, *_: Any) -> None:
            raise RuntimeError("Non-zero status code")

    library = SimpleNamespace(
        __version__="1.0", SessionOptions=SimpleNamespace, InferenceSession=Session
    )
    monkeypatch.setattr(onnx, "require_onnx", lambda: (None, library))
    expected = (
        r"onnxruntime 1\.0: does not open the graph: Protobuf parsing failed\. .*Try another"
        r" version of onnxruntime"
    )
    with pytest.raises(CheckpointError, match=expected):
        onnx.OnnxRuntime(tmp_path / "bad.onnx", nn.Module())
    reader = onnx.OnnxRuntime(tmp_path / "good.onnx", nn.Module())
    with pytest.raises(
        CheckpointError,
        match=r"does not run the graph on tokens \[2, 3\]: Non-zero status code\. Nothi",
    ):
        reader.outputs(SAMPLE, [])


# -------------------------------------------------------------------------------------- other tools
def test_what_transformers_does_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "odd", "architectures": ["OddForCausalLM"]})
    )
    library: Any = SimpleNamespace(__version__="9.9", AutoModelForCausalLM=SimpleNamespace())
    library.utils = SimpleNamespace(logging=SimpleNamespace(disable_progress_bar=lambda: None))
    monkeypatch.setattr(huggingface, "require_transformers", lambda: library)
    for error, said in (
        (ValueError("Odd is unknown\nfurther"), "Odd is unknown"),
        (KeyError(), "KeyError"),
    ):

        def fails(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        library.AutoModelForCausalLM.from_pretrained = fails
        expected = (
            rf"transformers 9\.9: does not open the folder that was written: {said}\. {AS_IT_WAS}\."
            r" Try another"
        )
        with pytest.raises(CheckpointError, match=expected):
            huggingface.Transformers(tmp_path)


def test_what_llama_cpp_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"choices": [{"text": "a", "logprobs": None}]}
    server = SimpleNamespace(name="llama.cpp (fake)", complete=lambda _: answer)
    monkeypatch.setattr(gguf, "LlamaServer", lambda *_, **__: server)
    reader = gguf.LlamaCpp(tmp_path / "a.gguf", 300, 16, 65)
    expected = (
        r"llama\.cpp \(fake\): answers without probabilities of tokens: \{'choices'.*\."
        rf" {AS_IT_WAS}\. Try anot"
    )
    with pytest.raises(CheckpointError, match=expected):
        reader.outputs(SAMPLE, [0])


def test_a_tokenizer_in_a_file_names_the_file(tmp_path: Path) -> None:
    write_small(tmp_path / "a.gguf")
    content = (tmp_path / "a.gguf").read_bytes()
    (tmp_path / "b.gguf").write_bytes(
        content.replace(b"\4\0\0\0\0\0\0\0gpt2", b"\4\0\0\0\0\0\0\0gpt9", 1)
    )
    with pytest.raises(
        CheckpointError, match=r"b\.gguf: tokenizer\.ggml\.model is 'gpt9'; read are 'gpt2'"
    ):
        read_gguf_processor(tmp_path / "b.gguf")


# ------------------------------------------------------------------------------------------- naming
class _Shown(Reader):
    """A reader whose layers are numbers."""

    name = "shown"

    def __init__(self, **layers: float) -> None:
        self.found = {
            name.replace("_", "."): torch.tensor([value]) for name, value in layers.items()
        }

    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        return torch.zeros(1)

    def layers(self, sample: Sample) -> dict[str, Tensor]:
        return self.found


def test_the_first_layer_that_differs_is_named_as_far_as_it_is_seen() -> None:
    ours = _Shown(embed=1.0, blocks_0=2.0, blocks_1=3.0, head=4.0)
    for others, expected in (
        ({"embed": 1.5, "blocks_0": 9.0}, "the first layer that differs is embed"),
        (
            {"embed": 1.0, "head": 4.5},
            "differs is head, or blocks.0 or blocks.1 before it, which cannot be seen there",
        ),
        ({"blocks_0": 2.0, "blocks_1": float("nan")}, "the first layer that differs is blocks.1"),
        ({"embed": 1.0, "blocks_1": 3.0}, "all layers agree, so the output layer differs"),
        (
            {},
            (
                "no layer's output can be seen in shown, and each tensor in the file is the trained"
                " model's"
            ),
        ),
    ):
        assert first_difference(ours, _Shown(**others), [SAMPLE], 1e-4).endswith(expected)


def test_what_writes_no_text_is_nothing_for_ctranslate2() -> None:
    job: Any = SimpleNamespace(merged=SimpleNamespace(module=nn.Linear(2, 2)))
    problem = (
        "Linear is no encoder with a decoder that writes a text. Export it to huggingface, onnx"
    )
    with pytest.raises(CheckpointError, match=problem):
        EXPORTERS["ctranslate2"](job)
