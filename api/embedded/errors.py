"""
Errors of the embedded stack; the command line prints each as one sentence.

    deepfakestream.errors.DeepfakeStreamError
    └── StackError              the stack cannot be started, or a part of it keeps crashing
        └── PortTakenError      another program took a port while the stack started
"""

from deepfakestream.errors import DeepfakeStreamError


class StackError(DeepfakeStreamError):
    """The embedded stack could not be started."""

    code = "stack_failed"


class PortTakenError(StackError):
    """Another program took a port after it had been chosen and before the service listened on it."""
