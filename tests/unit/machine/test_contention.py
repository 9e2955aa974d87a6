"""A run that other programs slow down says so, once in a while."""

from __future__ import annotations

import time

import pytest

from groundup.machine import contention
from groundup.machine.contention import ContentionWatch, Usage, measure_usage


class Machine:
    """Two cores that advance ten seconds at a time, with a share for the run and one for others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.own, self.all = 0.0, 0.0, 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def usage(self) -> Usage:
        return Usage(self.now, self.own, self.all, 2)

    def run(self, own: float, others: float, seconds: float = 10.0) -> None:
        self.now += seconds
        self.own += own * seconds
        self.all += (own + others) * seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    return Machine(monkeypatch)


def test_another_busy_program_is_named_with_what_it_costs(machine: Machine) -> None:
    watch = ContentionWatch(2, machine.usage)
    machine.run(own=1.0, others=1.0)
    assert watch.check() == (
        "other programs take 1.0 of 2 cores: steps take about 2.0 times as long. End them, or use"
        " fewer threads (machine.threads)"
    )


def test_it_is_said_once_in_ten_minutes(machine: Machine) -> None:
    watch = ContentionWatch(2, machine.usage)
    said = 0
    for _ in range(61):
        machine.run(own=1.0, others=1.0)
        said += watch.check() != ""
    assert said == 2


@pytest.mark.parametrize(
    ("own", "others"),
    [(2.0, 0.0), (1.9, 0.1), (1.0, 0.0), (1.0, 0.7), (0.4, 0.1)],
    ids=["alone", "little", "one of two", "room for both", "waiting for a disk"],
)
def test_a_machine_with_room_is_not_worth_a_word(
    machine: Machine, own: float, others: float
) -> None:
    watch = ContentionWatch(2, machine.usage)
    machine.run(own, others)
    assert watch.check() == ""


def test_what_the_run_used_alone_is_what_it_is_compared_with(machine: Machine) -> None:
    watch = ContentionWatch(2, machine.usage)
    machine.run(own=1.1, others=0.0)  # its second thread is mostly idle
    assert watch.check() == ""
    machine.run(own=1.0, others=1.0)
    assert watch.check() == ""
    machine.run(own=0.5, others=1.5)
    assert "about 2.2 times as long" in watch.check()


def test_less_than_a_window_is_not_looked_at(machine: Machine) -> None:
    watch = ContentionWatch(2, machine.usage)
    machine.run(own=0.5, others=1.5, seconds=5.0)
    assert watch.check() == ""
    machine.run(own=0.5, others=1.5, seconds=5.0)
    assert watch.check() != ""


def test_torch_before_groundup_is_named_as_what_makes_it_worse(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contention, "waits_by_spinning", lambda: True)
    watch = ContentionWatch(2, machine.usage)
    machine.run(own=0.5, others=1.5)
    assert watch.check().endswith("worse: import groundup first")


def test_the_process_is_part_of_what_the_machine_does() -> None:
    before = measure_usage()
    begin = time.process_time()
    # on a busy machine this process may get no processor for a while
    while time.process_time() - begin < 0.03 or time.perf_counter() - before.clock_s < 0.05:
        sum(range(1000))
    after = measure_usage()
    assert after.own_s > before.own_s
    assert after.all_s > before.all_s
    assert after.cores >= 1
