"""The machine: what it is, how fast it multiplies, and the choices that follow.

Each choice is frozen in the run's recipe.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import psutil
import torch

from groundup.contracts.models import blocks_of
from groundup.core.errors import RecipeError, TrainingError
from groundup.machine.allocator import tune_allocator
from groundup.recipe.sections import Machine

__all__ = [
    "autocast",
    "compile_layers",
    "describe_machine",
    "deterministic_backward",
    "eager",
    "matmul_flops_per_s",
    "memory_bytes",
    "prepare",
    "product_dtype",
    "resolve",
    "weight_dtype",
]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
# Autocast itself costs casts: bf16 must multiply this much faster to win a whole step.
_BF16_ADVANTAGE = 1.5
_LONG_RUN_S = 600.0
# PyTorch refuses deterministic products on a GPU without it.
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
# FLOPs of a micro-batch below which one core is done before the others have begun.
_SMALL_STEP = 1.5e7


def matmul_flops_per_s(device: str, precision: str, seconds: float = 0.1) -> float:
    """Return the rate of matrix multiplication, in FLOP/s: the median of square products within
    about ``seconds``.

    It is measured once in a process for each number of threads.
    """
    return _measured_flops_per_s(device, precision, seconds, torch.get_num_threads())


@cache
def _measured_flops_per_s(device: str, precision: str, seconds: float, threads: int) -> float:
    # a GPU is not filled by less
    size = 1024 if device == "cpu" else 4096
    # bf16 without instructions for it is emulated: products of 1024 would take seconds each.
    if device == "cpu" and 64 * _time_product(256, device, precision) > seconds:
        size = 256
    values = torch.linspace(-1, 1, size * size, device=device).view(size, size)
    values = values.to(_DTYPES[precision])
    out = torch.empty_like(values)
    times: list[float] = []
    end = time.perf_counter() + seconds
    with torch.no_grad():
        # the first call builds the kernel
        torch.mm(values, values, out=out)
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            torch.mm(values, values, out=out)
            if device != "cpu":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return 2.0 * size**3 / statistics.median(times)


def _time_product(size: int, device: str, precision: str) -> float:
    values = torch.ones(size, size, device=device, dtype=_DTYPES[precision])
    torch.mm(values, values)
    start = time.perf_counter()
    torch.mm(values, values)
    return time.perf_counter() - start


def resolve(
    machine: Machine, batch_size: int, sample_flops: float, samples: int, processes: int = 1
) -> Machine:
    """Replace every 'auto' by a choice for this machine; where there is none, nothing is measured.

    Args:
        machine: The recipe's section.
        batch_size: The largest micro-batch there can be.
        sample_flops: Work of one sample, forward and backward; 'threads: auto' takes one where a
            step is tiny.
        samples: Those of the whole run, 0 if only the data tells; 'compile: auto' compiles what
            would take over ten minutes, so that the start, up to a minute, is won back.
        processes: How many of the run's share the cores of this machine.

    Raises:
        RecipeError: If a device is asked for that is not here.
    """
    device: str = machine.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError(
            "recipe.machine.device",
            "'cuda' is not available here; allowed: cpu",
            "Use device: auto",
        )
    if device == "cuda" and machine.deterministic:
        _promise_deterministic_products()
    micro_batch_size = (
        batch_size if machine.micro_batch_size == "auto" else machine.micro_batch_size
    )
    tiny = 0.0 < sample_flops * micro_batch_size < _SMALL_STEP
    cores = max(len(os.sched_getaffinity(0)) // processes, 1)
    threads = machine.threads
    if threads == "auto":
        threads = 1 if tiny else cores
    # before anything is measured: rates are those of this many threads
    torch.set_num_threads(threads)
    precision: str = machine.precision
    if precision == "auto":
        precision = _choose_precision(device)
    compiled = machine.compile
    if compiled == "auto":
        compiled = _is_worth_compiling(device, precision, samples * sample_flops)
    chosen = {
        "device": device,
        "precision": precision,
        "compile": compiled,
        "threads": threads,
        "micro_batch_size": micro_batch_size,
    }
    return machine.model_copy(update=chosen)


def _is_worth_compiling(device: str, precision: str, training_flops: float) -> bool:
    if device == "cpu" and shutil.which("g++") is None:
        return False
    # a model reaches about half of the rate of products
    return training_flops / (0.5 * matmul_flops_per_s(device, precision)) > _LONG_RUN_S


def _choose_precision(device: str) -> str:
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    needed = _BF16_ADVANTAGE * matmul_flops_per_s(device, "fp32")
    return "bf16" if matmul_flops_per_s(device, "bf16") >= needed else "fp32"


def prepare(machine: Machine) -> torch.device:
    """Set up this process for a resolved machine section and return the device.

    Denormal numbers are flushed to zero: on CPUs they slow some training threefold, and none is
    worth learning from.
    """
    if machine.device == "cpu":
        tune_allocator()
    if isinstance(machine.threads, int):
        torch.set_num_threads(machine.threads)
    torch.set_flush_denormal(True)
    if machine.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = machine.precision == "bf16"
    if machine.deterministic:
        if machine.device == "cuda":
            _promise_deterministic_products()
        if machine.compile is True:
            torch.use_deterministic_algorithms(True, warn_only=True)
        else:
            # the same without telling the compiler, whose import takes seconds
            torch.set_deterministic_debug_mode("warn")
        # it would fill every empty tensor with NaN, to find who reads it before it is written
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid
    return torch.device(machine.device)


@cache
def _promise_deterministic_products() -> None:
    """Tell PyTorch what it asks for before products on a GPU count as deterministic.

    It looks once, before the first product of the process. Later products parse the variable again,
    for a tenth of a millisecond each, so it is taken away; unless a user has set it, or PyTorch
    asks for it at every product.
    """
    if _WORKSPACE in os.environ:
        return
    os.environ[_WORKSPACE] = ":4096:8"
    mode = torch.get_deterministic_debug_mode()
    one = torch.ones(1, 1, device="cuda")
    torch.mm(one, one)
    del os.environ[_WORKSPACE]
    torch.set_deterministic_debug_mode("error")
    try:
        torch.mm(one, one)
    except RuntimeError:
        os.environ[_WORKSPACE] = ":4096:8"
    finally:
        torch.set_deterministic_debug_mode(mode)


@contextlib.contextmanager
def deterministic_backward(machine: Machine) -> Iterator[None]:
    """Let a backward pass on a GPU take deterministic algorithms alone, where the machine section
    asks for it.

    Raises:
        TrainingError: If there is none for a part of the model.
    """
    if machine.device == "cpu" or not machine.deterministic:
        yield
        return
    # As long as others are only warned of, attention on a GPU adds its gradients up in any order.
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        operation, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise TrainingError(
            "recipe.machine.deterministic",
            f"{operation} has no deterministic algorithm on this device",
            "Set machine.deterministic: false; a resumed run is then the same up to rounding",
        ) from error
    finally:
        torch.set_deterministic_debug_mode("warn")


def weight_dtype(machine: Machine) -> torch.dtype:
    """Return the precision of a model's weights: fp32, unless everything is in fp64."""
    return torch.float64 if machine.precision == "fp64" else torch.float32


def product_dtype(machine: Machine) -> torch.dtype:
    """Return what matrix products are computed in, those of the optimizer included."""
    return _DTYPES[machine.precision]


def autocast(machine: Machine) -> AbstractContextManager[Any]:
    """Return the context for a forward pass: bf16 matrix products where the machine section says
    so."""
    if machine.precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(machine.device, dtype=torch.bfloat16)


def compile_layers(model: torch.nn.Module) -> None:
    """Compile layer by layer where the model lists its layers: equal layers share their code, so
    the start is quick."""
    for part in blocks_of(model) or [model]:
        part.compile(dynamic=False)


def eager(machine: Machine) -> AbstractContextManager[Any]:
    """Return the context in which a compiled model runs as it was written: its shapes differ in
    evaluation.

    Nothing is done for a model that is not compiled: only to ask the compiler takes seconds.
    """
    if machine.compile is not True:
        return contextlib.nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def memory_bytes(device: torch.device) -> int:
    """Return the memory in use: the process's resident memory on a CPU, the peak allocated on a
    GPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def describe_machine() -> dict[str, Any]:
    """Return what a reader needs to reproduce a figure: processor, memory, system and library
    versions."""
    return {
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        # Private to torch, which may have it under another name in another version.
        "amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
