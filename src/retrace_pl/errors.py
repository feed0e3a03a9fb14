"""Errors that a user can act on; the command line turns each into one line and an exit code."""

from __future__ import annotations


class RetraceError(Exception):
    """Base of every error this package raises on purpose.

    The message is one line that names the setting at fault and the remedy.
    """

    exit_code = 1


class InputError(RetraceError):
    """A setting, file or data set given by the user cannot be used (exit code 2)."""

    exit_code = 2


class NotApplicable(InputError):
    """An attack or a search has nothing to work on: in this pair, with this access, or within this budget.

    The message says why. An audit that runs several attacks records the reason in place of a result and goes on.
    """


class RunError(RetraceError):
    """A stage started with valid input and failed while running (exit code 1)."""


class AccessError(RetraceError):
    """A signal above the auditor's access level was asked for."""
