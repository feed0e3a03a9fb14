"""Errors that a user can act on; the command line turns each into one line and an exit code."""

from __future__ import annotations

import errno
from pathlib import Path

UNWRITABLE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
    errno.EROFS: "make the file system writable",
    errno.EACCES: "get permission to write there",
    errno.EPERM: "get permission to write there",
}
"""Number of an operating system's error -> what helps against it."""


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


class DivergenceError(RunError):
    """A training left the finite numbers: its loss, its gradients or its weights."""


class AccessError(RetraceError):
    """A signal above the auditor's access level was asked for."""


def unwritable(path: str | Path, error: OSError, option: str = "--output") -> RunError:
    """What to tell somebody whose file cannot be written.

    Args:
        path: the file.
        error: what the operating system said.
        option: the option that named the folder.
    """
    remedy = UNWRITABLE.get(error.errno or 0, "check the disk")
    return RunError(f"cannot write {path}: {error.strerror or error}; {remedy} or choose another folder with {option}")
