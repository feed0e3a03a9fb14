"""Objects by their dotted names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrace_pl.data.paths import one_line
from retrace_pl.errors import InputError

__all__ = ["import_named"]


def import_named(path: str, option: str) -> Any:
    """The object behind a dotted path; modules of the working folder are found too, those installed go first.

    Raises:
        InputError: There is none, or its module cannot be imported.
    """
    module, _, name = path.replace(":", ".").rpartition(".")
    if not module or not all(part.isidentifier() for part in (*module.split("."), name)):
        raise InputError(f"{option}: {path} is no dotted name such as my_package.MyNet")
    try:
        with _working_folder_importable():
            owner = importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{option}: {module} cannot be imported: {error}") from error
    except Exception as error:
        raise InputError(f"{option}: importing {module} fails: {one_line(error)}") from error
    if not hasattr(owner, name):
        raise InputError(f"{option}: {module} has no {name}")
    return getattr(owner, name)


@contextmanager
def _working_folder_importable() -> Iterator[None]:
    """The console command, unlike ``python -m``, does not look for modules in the working folder."""
    folder = str(Path.cwd())
    added = folder not in sys.path and "" not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added:
            sys.path.remove(folder)
