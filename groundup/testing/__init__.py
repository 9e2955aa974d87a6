"""Checks that a model, a task, a data source or a processor keeps its contract: a user's as ours.

Each check trains nothing for longer than two steps. What is not kept raises a ``ContractError``,
which names the contract, what was found, and what to do.
"""

from groundup.testing.data import check_data
from groundup.testing.failure import ContractError
from groundup.testing.models import check_model
from groundup.testing.processors import check_processor
from groundup.testing.tasks import check_task

__all__ = ["ContractError", "check_data", "check_model", "check_processor", "check_task"]
