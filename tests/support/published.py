"""Published runs, what a plan on paper says of each, and the table of both in the documentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.parallel.layout import Layout
from groundup.planning.device_table import Device, device_named
from groundup.planning.memory import estimate_memory
from groundup.planning.step_time import estimate_step
from groundup.planning.workload import DecoderShape, Practice, Workload
from groundup.recipe.yaml import parse_yaml

FILE = Path(__file__).parents[2] / "benchmarks" / "published_runs.yaml"
GIB = 2**30


def published() -> dict[str, dict[str, Any]]:
    """Return the rows of the file, by name."""
    found: dict[str, dict[str, Any]] = parse_yaml(FILE.read_text(encoding="utf-8"), str(FILE))
    return found


def workload_of(row: dict[str, Any]) -> Workload:
    """Return the step that a row is of."""
    layout = Layout(**row["layout"])
    practice = Practice(**row["practice"])
    shape = DecoderShape(**row["shape"])
    return Workload(shape, layout, row["batch"], row["length"], row.get("micro", 1), practice)


def device_of(row: dict[str, Any]) -> Device:
    """Return the device that a row ran on."""
    device = device_named(row["device"])
    slower = row.get("slower")
    if slower is None:
        return device
    # MFU stays a share of the data sheet's peak, as the source has it.
    return replace(
        device,
        matmul=device.matmul * slower["compute"],
        attention={name: share * slower["compute"] for name, share in device.attention.items()},
        memory_rate=slower["memory_tb_s"] * 1e12,
        memory_bytes=slower["memory_gb"] * 1e9,
    )


def planned_mfu(row: dict[str, Any]) -> float:
    """Return the MFU in percent, its FLOPs counted as the source counts them."""
    work = workload_of(row)
    device = device_of(row)
    shape = work.shape
    flops = shape.flops_per_token(work.length)
    if row["attention"] == "full":
        missed = work.length - shape.seen(work.length)
        flops += 12.0 * shape.layers * shape.query_width * missed
    if row.get("embedding"):
        flops += 6.0 * shape.output_parameters
    step = estimate_step(work, device).total
    tokens = work.batch * work.length
    return 100 * flops * tokens / (step * work.layout.size * device.peak_flops)


def planned_gib(row: dict[str, Any]) -> float:
    """Return the memory of a device in GiB."""
    return sum(estimate_memory(workload_of(row)).values()) / GIB


def error_of(planned: float, row: dict[str, Any], name: str) -> float:
    """Return by how much a plan is off, as a share of what was published."""
    return float(planned / row[name] - 1)


def table_rows() -> list[str]:
    """Return the lines of the table in the documentation: the same in every language."""
    lines = []
    for name, row in published().items():
        layout = " × ".join(f"`{axis}` {size}" for axis, size in row["layout"].items())
        mfu = planned_mfu(row)
        cells = [name + (" *" if row.get("fitted") else ""), layout, f"{row['mfu_percent']:.1f}"]
        cells += [f"{mfu:.1f}", f"{error_of(mfu, row, 'mfu_percent'):+.1%}"]
        memory = "| "
        if "memory_gib" in row:
            gib = planned_gib(row)
            error = error_of(gib, row, "memory_gib")
            memory = f"{row['memory_gib']:.1f} / {gib:.1f} | {error:+.1%}"
        lines.append(f"| {' | '.join(cells)} | {memory} |")
    return lines
