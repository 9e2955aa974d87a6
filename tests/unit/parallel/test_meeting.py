"""The address where machines meet, looked at by one of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from torch.distributed import TCPStore

from groundup.core.errors import TrainingError
from groundup.parallel import meeting
from groundup.parallel.launch import launch
from groundup.parallel.meeting import check_rendezvous


@pytest.fixture
def used_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port at which a program listens that never answers."""
    monkeypatch.setattr(meeting, "_ANSWER_S", 0.5)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.parametrize("address", ["node1", "node1:", ":29400", "node1:70000", "node1:x"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(TrainingError, match=r"is no address; allowed: HOST:PORT"):
        check_rendezvous(address)


def test_an_unknown_machine() -> None:
    with pytest.raises(TrainingError, match=r"no machine is known as no-such-machine.invalid \("):
        check_rendezvous("no-such-machine.invalid:29400")


def test_a_machine_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "REACHED_S", 0.5)
    # An address of the documentation's network, where nobody is.
    said = r"nobody answers at 192.0.2.1:29400 within 0.5 s \("
    with pytest.raises(TrainingError, match=said):
        launch(["train", "recipe.yaml"], 1, 2, "192.0.2.1:29400")


def test_a_port_in_use_ends_a_launch(used_port: int) -> None:
    with pytest.raises(TrainingError, match=rf"port {used_port} of localhost is in use by another"):
        launch(["train", "recipe.yaml"], 1, 2, f"localhost:{used_port}")


def test_free_ports_and_machines_that_meet_already(used_port: int) -> None:
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    check_rendezvous(f"localhost:{store.port}")
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        free = tried.getsockname()[1]
    check_rendezvous(f"localhost:{free}")
    check_rendezvous(f"[127.0.0.1]:{free}")
