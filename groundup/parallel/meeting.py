"""The address where machines meet: looked at before PyTorch waits there for minutes."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import threading
import time

import psutil
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # not in its stubs

from groundup.core.errors import TrainingError

__all__ = ["REACHED_S", "check_rendezvous"]

# A store answers at once.
_ANSWER_S = 5.0
_RETRY_S = 0.5
# How long the machine of the rendezvous may take to be reached.
REACHED_S = 60
_WHERE = "groundup launch --rendezvous"


def check_rendezvous(endpoint: str) -> None:
    """Make sure that machines can meet at an address, as far as this one alone can tell.

    Args:
        endpoint: ``HOST:PORT``.

    Raises:
        TrainingError: If it is no address, nobody knows the host, or another program has the port.
    """
    found = re.fullmatch(r"\[?([^\[\]]+?)\]?:(\d+)", endpoint)
    if found is None or not 0 < int(found[2]) < 65536:
        raise TrainingError(
            _WHERE,
            f"{endpoint!r} is no address; allowed: HOST:PORT, with a port from 1 to 65535",
            "Give the same one on each machine, such as node1:29400",
        )
    host, port = found[1], int(found[2])
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, port)}
    except OSError as error:
        raise TrainingError(
            _WHERE, f"no machine is known as {host} ({error.strerror})", "Correct the name"
        ) from None
    own = {each.address for some in psutil.net_if_addrs().values() for each in some}
    # Whether a port of another machine is free only that one knows.
    if not addresses & own:
        _reach(host, port)
    elif not _is_free(host, port) and not _is_store(host, port):
        raise TrainingError(
            _WHERE,
            f"port {port} of {host} is in use by another program",
            "Choose another port, the same on each machine",
        )


def _reach(host: str, port: int) -> None:
    """Wait until another machine answers: it may be started a little later.

    Raises:
        TrainingError: If none does.
    """
    # PyTorch would wait as long, and print the stack of its C++ at the end.
    end = time.monotonic() + REACHED_S
    while True:
        try:
            socket.create_connection((host, port), timeout=min(_ANSWER_S, REACHED_S)).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise TrainingError(
                    _WHERE,
                    f"nobody answers at {host}:{port} within {REACHED_S} s"
                    f" ({error.strerror or error})",
                    "Start the same command on that machine, and check that its port is open",
                ) from None
        time.sleep(_RETRY_S)


def _is_free(host: str, port: int) -> bool:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as tried:
        # As a server does: connections of before that are still being closed are no hindrance.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(address)
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _is_store(host: str, port: int) -> bool:
    """Whether machines meet there already: another agent of this machine may have come first."""
    found = []

    def ask() -> None:
        with contextlib.suppress(RuntimeError):
            found.append(TCPStore(host, port, is_master=False, wait_for_workers=False))

    # In a thread, because PyTorch waits without end for the answer of a program that is no store.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_S)
    return bool(found)
