"""Where messages go: standard error, as it is at the moment of each message."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

__all__ = ["log_to_standard_error"]

_NOISY = ("httpx", "urllib3", "absl", "torch")


class _CurrentStandardError(logging.StreamHandler[TextIO]):
    """A live display puts itself in the place of ``sys.stderr``; a handler that kept the first one would tear it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_standard_error() -> None:
    """Print messages as they are, and those of chatty libraries from warnings up."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_CurrentStandardError()])
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
