"""Groundup: develop large models from the ground up, and fine-tune them. ``import groundup`` does
not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.machine.threads import choose_waiting_policy

if TYPE_CHECKING:
    from groundup.api import evaluate, load, predict, resume, train, train_all, trainer

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "load", "predict", "resume", "train", "train_all", "trainer"]

choose_waiting_policy()  # here: torch reads it once, and whatever imports torch imports this first


def __getattr__(name: str) -> Any:
    if name in __all__:
        from groundup import api

        # A module's attributes have no other way in by a name that is a value.
        return getattr(api, name)
    raise AttributeError(f"module 'groundup' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
