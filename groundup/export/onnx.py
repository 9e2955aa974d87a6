"""An ONNX file, made through torch.export and checked against onnxruntime."""

from __future__ import annotations

import ast
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.core.errors import CheckpointError, MissingExtraError
from groundup.export.verify import Reader, Sample, parts_of

__all__ = [
    "FILE",
    "OnnxRuntime",
    "export_graph",
    "open_session",
    "require_onnx",
    "run_session",
    "write_facts",
    "write_graph",
]

FILE = "model.onnx"
# where a node says which parts of the model it is of
_SCOPES = "pkg.torch.onnx.name_scopes"
_NOTHING = "Nothing was exported, and the run is as it was"
_FREE = (
    f"{_NOTHING}. A graph has no branches that depend on numbers, and no sizes but its inputs';"
    " write the model so"
)
_VERSION = f"{_NOTHING}. Try another version of onnxruntime"


def require_onnx() -> tuple[Any, Any]:
    """Return the libraries ``onnx`` and ``onnxruntime``.

    Raises:
        MissingExtraError: If one of them, or ``onnxscript``, is not installed.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - by torch.onnx
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "onnx") from None
    return onnx, onnxruntime


class _Named(nn.Module):
    """A model whose inputs are given in a fixed order."""

    def __init__(
        self, model: nn.Module, names: Sequence[str], read: Callable[[Any], Any] | None
    ) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)
        self.read = read

    def forward(self, *values: Tensor) -> Any:
        """Return what is read of what the model returns."""
        found = self.model(**dict(zip(self.names, values, strict=True)))
        return found if self.read is None else self.read(found)


def write_graph(
    path: Path,
    model: nn.Module,
    sample: Sample,
    *,
    sequences: bool,
    outputs: Sequence[str] = ("outputs",),
    read: Callable[[Any], Any] | None = None,
) -> None:
    """Write the model's forward pass as a graph; the number of rows is free, and that of positions
    in sequences.

    Args:
        path: The file.
        model: In evaluation mode, on the CPU.
        sample: Inputs that it takes, of any number of rows.
        sequences: Whether the second dimension of inputs is a length.
        outputs: The names of what the graph returns.
        read: Makes these tensors of what the model returns; None: it returns them.

    Raises:
        CheckpointError: If torch.export cannot trace the model, or fixes a dimension that must be
            free.
    """
    # two or three rows: of a single one torch.export takes the number for fixed
    inputs = {name: torch.cat([value, value])[:3] for name, value in sample.inputs.items()}
    free: dict[str, dict[int, str]] = {name: {0: "batch"} for name in inputs}
    for name, value in inputs.items():
        # Of what pictures are asked for by; the pictures themselves are of one size.
        a_text = name == "text" or (sequences and name in ("tokens", "inputs"))
        if a_text and value.ndim > 1:
            free[name][1] = "length"
    named = _Named(model, list(inputs), read)
    export_graph(path, named, inputs, free, outputs, type(model).__name__)


def write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Write into a graph's file what its users must know: values of JSON, by name."""
    onnx, _ = require_onnx()
    # Weights over 2 GB are in files of their own, which stay as they are.
    graph = onnx.load(str(path), load_external_data=False)
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}
    onnx.helper.set_model_props(graph, texts)
    onnx.save(graph, str(path))


def export_graph(
    path: Path,
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    free: Mapping[str, dict[int, str]],
    outputs: Sequence[str],
    name: str,
) -> None:
    """Write a module's forward pass, which takes ``*values``, as a graph.

    Args:
        path: The file.
        module: On the CPU.
        inputs: Examples by the names of the graph's inputs, in that order.
        free: Of each the dimensions that are free, and what each is.
        outputs: The names of what it returns.
        name: Of the model, for messages.

    Raises:
        CheckpointError: If torch.export cannot trace the module, or fixes a dimension that must be
            free.
    """
    onnx, _ = require_onnx()
    shapes = tuple(free[each] for each in inputs)
    try:
        with _silence_libraries():
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                verbose=False,
                # one tuple for ``*values``
                dynamic_shapes=(shapes,),
                input_names=list(inputs),
                output_names=list(outputs),
            )
            assert program is not None
            program.save(str(path))
    except Exception as error:
        # the library raises nothing narrower
        lines = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            "model",
            f"torch.export cannot write {name}: {lines[0].strip()[:200]}",
            _FREE,
        ) from error
    graph = onnx.load(str(path), load_external_data=False).graph
    # torch.export may find a size that a model fixes, and does not say so
    for value, wanted in zip(graph.input, shapes, strict=True):
        fixed = [wanted[n] for n in wanted if not value.type.tensor_type.shape.dim[n].dim_param]
        if fixed:
            raise CheckpointError(
                "model",
                f"torch.export fixes the {fixed[0]} of {value.name}, which must be free",
                _FREE,
            )


@contextmanager
def _silence_libraries() -> Iterator[None]:
    """Keep from the user what is said of libraries that are not needed, and of how the graph is
    made smaller."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def open_session(path: Path) -> Any:
    """Return onnxruntime's session of a graph.

    Raises:
        CheckpointError: If it does not open the file.
    """
    _, library = require_onnx()
    options = library.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # errors only
    options.log_severity_level = 3
    try:
        return library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # the library raises nothing narrower
        name = f"onnxruntime {library.__version__}"
        problem = f"does not open the graph: {str(error)[:200]}"
        raise CheckpointError(name, problem, _VERSION) from error


def run_session(session: Any, inputs: Mapping[str, Tensor], names: Sequence[str]) -> list[Tensor]:
    """Return these outputs of a graph, given what of the inputs it takes.

    Raises:
        CheckpointError: If it does not run.
    """
    _, library = require_onnx()
    given = {value.name for value in session.get_inputs()}
    taken = {name: value.numpy() for name, value in inputs.items() if name in given}
    try:
        return [torch.from_numpy(found) for found in session.run(list(names), taken)]
    except Exception as error:
        # the library raises nothing narrower
        name = f"onnxruntime {library.__version__}"
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
        problem = f"does not run the graph on {shapes}: {str(error)[:200]}"
        raise CheckpointError(name, problem, _VERSION) from error


class OnnxRuntime(Reader):
    """A file opened by onnxruntime."""

    def __init__(self, path: Path, model: nn.Module) -> None:
        _, library = require_onnx()
        self.name = f"onnxruntime {library.__version__}"
        self.path = path
        self.parts = list(parts_of(model))
        self.session = open_session(path)

    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        """Return (P, V)."""
        (found,) = run_session(self.session, sample.inputs, ["outputs"])
        if sample.prompt:
            return found[0, list(positions)]
        # All numbers of a picture are one row.
        return found.flatten(1) if found.dim() == 4 else found

    def layers(self, sample: Sample) -> dict[str, Tensor]:
        """Return what each part of the model computes: in a copy of the graph, its last node
        becomes an output."""
        onnx, _ = require_onnx()
        graph = onnx.load(str(self.path))
        last: dict[str, str] = {}
        for node in graph.graph.node:
            scopes = {entry.key: entry.value for entry in node.metadata_props}.get(_SCOPES, "[]")
            for scope in ast.literal_eval(scopes):
                name = scope.removeprefix("model.")
                if name in self.parts:
                    last[name] = node.output[0]
        known = {value.name for value in graph.graph.output}
        shown = {name: value for name, value in last.items() if value not in known}
        kind = onnx.TensorProto.FLOAT
        graph.graph.output.extend(
            onnx.helper.make_tensor_value_info(v, kind, None) for v in set(shown.values())
        )
        # next to the graph: weights over 2 GB are files that it names by relative paths
        copy = self.path.with_name(f".layers.{os.getpid()}.onnx")
        try:
            onnx.save(graph, str(copy))
            found = run_session(open_session(copy), sample.inputs, list(shown.values()))
        finally:
            copy.unlink(missing_ok=True)
        return dict(zip(shown, found, strict=True))
