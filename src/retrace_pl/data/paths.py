"""Paths given by the user: environment variables expanded, and one clear line when something cannot be read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retrace_pl.errors import InputError

_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)(?::-(?P<default>[^}]*))?\}|(?P<plain>[A-Za-z_]\w*))")


def expand(path: str | Path, setting: str) -> str:
    """Expand ``~`` and environment variables in a path: ``$NAME``, ``${NAME}``, ``${NAME:-otherwise}``.

    Args:
        path: The path as the user wrote it.
        setting: Name of the setting it came from, for the error message.

    Returns:
        The path with every variable replaced.

    Raises:
        InputError: If a variable is not set, or the path is empty.
    """

    def value(match: re.Match[str]) -> str:
        name = match["braced"] or match["plain"]
        found = os.environ.get(name) or match["default"]
        if not found:
            raise InputError(
                f"{setting}: {path} needs the environment variable {name}, which is not set; set it or write a path"
            )
        return found

    expanded = os.path.expanduser(_VARIABLE.sub(value, str(path)))
    if not expanded.strip():
        raise InputError(f"{setting}: the path is empty; name a file or folder")
    return expanded


def existing_folder(path: str | Path, setting: str) -> Path:
    """Expand a path and make sure that it is a folder.

    Raises:
        InputError: If it does not exist or is not a folder.
    """
    folder = Path(expand(path, setting))
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{setting}: the folder {folder} {state}; check the path")
    return folder


def existing_file(path: str | Path, setting: str) -> Path:
    """Expand a path and make sure that it is a file.

    Raises:
        InputError: If it does not exist or is not a file.
    """
    file = Path(expand(path, setting))
    if not file.is_file():
        state = "is not a file" if file.exists() else "does not exist"
        raise InputError(f"{setting}: the file {file} {state}; check the path")
    return file


def one_line(error: BaseException, limit: int = 200) -> str:
    """The type and message of an exception in one line of at most about ``limit`` characters."""
    message = " ".join(str(error).split())
    if len(message) > limit:
        message = message[: limit - 3] + "..."
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


@contextmanager
def explained(problem: str) -> Iterator[None]:
    """Turn whatever a third-party reader raises into one :class:`InputError` line that starts with ``problem``."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{problem} ({one_line(error)})") from error
