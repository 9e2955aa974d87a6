"""Rates of devices: from a table with sources, or measured here."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import psutil
import torch

from groundup.core.errors import GroundupError, did_you_mean
from groundup.machine import devices
from groundup.recipe.yaml import parse_yaml

__all__ = ["Device", "Devices", "device_named", "known_devices", "parse_devices"]

_TERA = 1e12
_GIGA = 1e9
_HERE = "here"


@dataclass(frozen=True)
class Device:
    """What one device can do; bytes a second are of one direction.

    Attributes:
        name: As in the table.
        peak_flops: FLOP/s that the vendor states for dense bf16 products.
        matmul: The best measured rate of large products, as a share of the peak.
        attention: The rate of fused attention, as a share of the peak, by its kernel.
        memory_bytes: Of its own memory.
        memory_rate: Bytes a second of its own memory.
        link_rate: Bytes a second to another device of its machine.
        network_rate: Bytes a second to another machine, of one device's part.
        a_machine: Devices in a machine.
        sources: Where the figures are from.
    """

    name: str
    peak_flops: float
    matmul: float
    attention: Mapping[str, float]
    memory_bytes: float
    memory_rate: float
    link_rate: float
    network_rate: float
    a_machine: int
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Devices:
    """So many devices of one kind."""

    count: int
    device: Device


@cache
def _table() -> dict[str, Any]:
    text = resources.files("groundup.planning").joinpath("devices.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = parse_yaml(text, "devices.yaml")
    return found


def known_devices() -> list[str]:
    """Return the names in the table."""
    return list(_table())


def device_named(name: str, precision: str = "auto") -> Device:
    """Return a device of the table, or with ``here`` what is measured on this machine.

    Args:
        name: In small or capital letters.
        precision: Of products that are measured; auto: whichever is quicker, as in training.

    Raises:
        GroundupError: If there is none of this name.
    """
    if name.lower() == _HERE:
        return _measure(precision)
    names = {known.lower(): known for known in _table()}
    if name.lower() not in names:
        raise GroundupError(
            "--devices",
            f"{name!r} is unknown; {did_you_mean(name, _table())}allowed:"
            f" {', '.join([*_table(), _HERE])}",
            "Choose one, such as 8xH100; here measures this machine",
        )
    known = names[name.lower()]
    row = _table()[known]
    return Device(
        known,
        row["peak_tflops"] * _TERA,
        row["matmul"],
        row["attention"],
        row["memory_gb"] * _GIGA,
        row["memory_tb_s"] * _TERA,
        row["link_gb_s"] * _GIGA,
        row["network_gb_s"] * _GIGA,
        row["a_machine"],
        tuple(row["sources"]),
    )


def parse_devices(text: str, precision: str = "auto") -> Devices:
    """Return what ``1024xH100`` means; a name alone is one device.

    Args:
        text: As it was given.
        precision: Of products, where they are measured.

    Raises:
        GroundupError: If it is not of this form, or the device is unknown.
    """
    match = re.fullmatch(r"(?:(\d+)\s*[xX]\s*)?([A-Za-z]\w*)", text.strip())
    if match is None or match[1] == "0":
        raise GroundupError(
            "--devices",
            f"{text!r} is not of the form COUNTxNAME",
            "Write for example 1024xH100",
        )
    count = int(match[1] or 1)
    device = device_named(match[2], precision)
    if device.name == _HERE and not torch.cuda.is_available():
        # Processes on one processor share what it can do.
        device = replace(
            device,
            peak_flops=device.peak_flops / count,
            memory_bytes=device.memory_bytes / count,
            memory_rate=device.memory_rate / count,
            a_machine=count,
        )
    return Devices(count, device)


def _measure(precision: str) -> Device:
    """Return this machine's device, its products and its memory measured."""
    on_gpu = torch.cuda.is_available()
    kind = "cuda" if on_gpu else "cpu"
    precisions = ("fp32", "bf16") if precision == "auto" else (precision,)
    rate = max(devices.matmul_flops_per_s(kind, each) for each in precisions)
    memory = float(psutil.virtual_memory().total)
    count = 1
    if on_gpu:
        memory = float(torch.cuda.get_device_properties(0).total_memory)
        count = torch.cuda.device_count()
    copied = _copy_rate(kind)
    # Nothing is exchanged while one process measures: memory's rate is the most a link could have.
    sources = (
        "measured on this machine: products and copies; links: assumed, a quarter of copies",
    )
    return Device(
        _HERE, rate, 1.0, {"flash2": 0.5}, memory, copied, copied / 4, 1.25e9, count, sources
    )


@cache
def _copy_rate(kind: str) -> float:
    """Return how many bytes a second are read and written together."""
    # More than caches hold.
    values = torch.ones(32 * 2**20, device=kind)
    target = torch.empty_like(values)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        target.copy_(values)
        if kind == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2.0 * values.numel() * values.element_size() / min(times)
