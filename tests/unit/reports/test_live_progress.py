"""The progress display on a terminal and in a log."""

from __future__ import annotations

import io
import itertools
import logging
from contextlib import redirect_stderr

import pytest
from rich.console import Console

from groundup.core.logs import log_to_standard_error
from groundup.reports.live_progress import ProgressDisplay

VALUES = {
    "loss": 3.21,
    "lr": 1e-3,
    "tokens_per_s": 12_300.0,
    "flops_per_s": 3.1e11,
    "matmul_share": 0.57,
    "memory_bytes": 1.25 * 2**30,
}


def test_a_log_gets_one_compact_line_every_few_seconds() -> None:
    out, clock = io.StringIO(), itertools.count(0.0, 1.0)
    console = Console(file=out, force_terminal=False, width=200)
    with ProgressDisplay(
        25, "tiny", console=console, every_s=10.0, clock=lambda: next(clock)
    ) as display:
        for step in range(1, 26):
            display.update({"step": step, **VALUES})
    lines = out.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == [
        "tiny 1/25",
        "tiny 11/25",
        "tiny 21/25",
        "tiny 25/25",
    ]
    for fact in (
        "loss 3.210",
        "lr 1.00e-03",
        "12.3 k tokens/s",
        "310 GFLOP/s (57% of matmul)",
        "1.25 GiB",
        "14 s left",
    ):
        assert fact in lines[1]
    assert "\x1b" not in out.getvalue()


def test_a_terminal_is_redrawn_and_given_back_even_after_ctrl_c() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=20, legacy_windows=False)

    def interrupted() -> None:
        with ProgressDisplay(10, "tiny", console=console) as display:
            display.update({"step": 1, **VALUES})
            display.message("saved step-00000001")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    text = out.getvalue()
    assert "saved step-00000001" in text
    assert "1/10" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_validations_and_samples_are_printed_above_the_bar() -> None:
    out = io.StringIO()
    with ProgressDisplay(
        10, "tiny", console=Console(file=out, force_terminal=False, width=60)
    ) as display:
        display.update({"step": 5, **VALUES})
        display.show({"kind": "train", "step": 5, "loss": 3.0})
        display.show({"kind": "evaluate", "step": 5, "loss": 3.5, "bits_per_byte": 2.25})
        display.show(
            {
                "kind": "sample",
                "step": 5,
                "prompt": "def open(",
                "text": "file,\n  mode) " + "x" * 300,
            }
        )
    lines = out.getvalue().splitlines()
    assert lines[1] == "tiny 5/10 · validation · loss 3.500 · bits per byte 2.250"
    assert lines[2].startswith("  def open(▸file, mode) xxx")
    assert lines[2].endswith("x…")
    assert len(lines) == 3


def test_messages_go_to_whatever_standard_error_is_now() -> None:
    root = logging.getLogger()
    before, levels = (
        list(root.handlers),
        [logging.getLogger(name).level for name in (None, "groundup")],
    )
    root.handlers.clear()
    try:
        log_to_standard_error()
        with redirect_stderr(io.StringIO()) as display:
            logging.getLogger("groundup").info("resumed")
            logging.getLogger("groundup.data.sources.audio").info("read")
            logging.getLogger("some_library").info("chatter")
            logging.getLogger("some_library").warning("old file")
        assert display.getvalue() == "resumed\nread\nold file\n"
    finally:
        root.handlers[:] = before
        for name, level in zip((None, "groundup"), levels, strict=True):
            logging.getLogger(name).setLevel(level)


def test_a_narrow_terminal_keeps_two_lines() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=40, legacy_windows=False)
    with ProgressDisplay(10, "tiny", console=console) as display:
        display.update(VALUES)
        assert len(console.render_lines(display._render(), pad=False)) == 2


def test_time_left_follows_the_latest_pace_and_forgets_pauses() -> None:
    now = 0.0
    console = Console(file=io.StringIO())
    display = ProgressDisplay(100, "tiny", console=console, clock=lambda: now)
    assert display.time_left_s is None
    for step in range(50, 60):
        now += 2.0
        display.update({"step": step})
    assert display.time_left_s == pytest.approx(82.0)
    display.message("validation")
    assert display.time_left_s is None
    display.update({"loss": float("nan")})
    assert display.step == 60
    assert "loss nan" in display._facts()


def test_rewards_come_first() -> None:
    display = ProgressDisplay(9, "tiny", console=Console(file=io.StringIO()))
    display.update({"step": 1, "loss": 0.0, "reward": 0.25, "no_signal": 0.5, "entropy": 1.0})
    assert display._facts() == ["reward 0.250", "no signal 0.500", "loss 0.000"]
