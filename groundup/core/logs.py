"""Where messages go: standard error, as it is at the moment of each message."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

__all__ = ["log_to_standard_error"]


class _CurrentStandardError(logging.StreamHandler[TextIO]):
    """A live display puts itself in the place of ``sys.stderr``; a handler that kept the first one
    would tear it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_standard_error() -> None:
    """Print groundup's messages as they are, and those of libraries from warnings up."""
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[_CurrentStandardError()]
    )
    # Of several processes that train one run, the first one says what all of them do.
    first = os.environ.get("RANK", "0") == "0"
    logging.getLogger("groundup").setLevel(logging.INFO if first else logging.WARNING)
