"""What a model, a task, a data source and a processor must be, and what else each may offer.

Nothing is probed: whoever needs a capability asks ``isinstance(part, Capability)`` with a protocol
that is declared here, and a run that needs one it does not find is refused before its first step.
"""
