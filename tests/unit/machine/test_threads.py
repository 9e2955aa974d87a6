"""The waiting policy of torch's threads: set before torch, unless the user has chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from groundup.machine.threads import SPIN_COUNT, VARIABLES, choose_waiting_policy, waits_by_spinning


@pytest.fixture(autouse=True)
def _undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def choose_without_torch() -> None:
    """Choose as in a process that has not loaded torch, which is back before anything imports it a
    second time: the fixtures that end a test do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "torch")
        choose_waiting_policy()


def test_a_short_spin_is_chosen_before_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "")  # so that what is set below is taken back
    monkeypatch.delenv("GOMP_SPINCOUNT")
    choose_without_torch()
    assert os.environ["GOMP_SPINCOUNT"] == str(SPIN_COUNT)
    assert not waits_by_spinning()


def test_after_torch_it_would_change_nothing_and_says_so() -> None:
    choose_waiting_policy()
    assert "GOMP_SPINCOUNT" not in os.environ
    assert waits_by_spinning()


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "7")]
)
def test_the_users_choice_stays(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    choose_without_torch()
    assert {key: os.environ.get(key) for key in VARIABLES if key in os.environ} == {name: value}


@pytest.mark.slow
@pytest.mark.parametrize("start", ["import groundup", "import groundup.cli.main"])
def test_the_package_and_the_command_line_choose_it_without_torch(start: str) -> None:
    code = f"import os, sys; {start}; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.split() == [str(SPIN_COUNT), "False"]
