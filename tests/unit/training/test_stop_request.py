"""A run that is asked to stop finishes its step, however often it is asked by a scheduler."""

from __future__ import annotations

import signal

import pytest

from groundup.training.throughput import StopRequest


def test_a_second_sigterm_says_nothing_new() -> None:
    with StopRequest() as stop:
        assert stop.requested == ""
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested == "SIGTERM"
        # Whoever types Ctrl-C now does not want to wait.
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_ctrl_c_stops_at_once() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested == "Ctrl-C"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
