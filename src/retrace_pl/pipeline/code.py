"""Which code settings name: the files of their classes, which somebody may edit between two runs."""

from __future__ import annotations

import hashlib
import inspect
import linecache
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "torchvision", "lightning", "stable-baselines3", "sb3-contrib", "numpy")
"""Packages that are known by their versions; of every other class that a setting names, the file is hashed."""


def code_hashes(settings: Any, known: Collection[str] = LIBRARIES) -> dict[str, str]:
    """Hash of the file of every class in the settings that is not part of a library: somebody may edit it.

    Args:
        settings: plain values; classes are found by their `class_path`.
        known: distributions whose files are not hashed.

    Returns:
        Dotted path of a class -> SHA-256 of the file, or the cell of a notebook, that defines it; what such a file
        imports is not followed.
    """
    found = {}
    for path in sorted(set(class_paths(settings))):
        package = path.partition(".")[0].replace("_", "-")
        digest = None if package in known else _hash_of(path)
        if digest is not None:
            found[path] = digest
    return found


def own_code(settings: Any) -> list[dict[str, str]]:
    """The same of classes that are not this package's either, in a list that is empty where there are none.

    Keys of finished work hold it: an edited method of one's own runs again, and all other keys stay as they are.

    Args:
        settings: plain values.
    """
    found = code_hashes(settings, (*LIBRARIES, "retrace-pl"))
    return [found] if found else []


def class_hash(kind: Any) -> str | None:
    """SHA-256 of the file that defines a class or function, or of the notebook's cell; None where there is neither.

    Args:
        kind: The class or function.
    """
    file = getattr(sys.modules.get(getattr(kind, "__module__", "")), "__file__", None)
    if file is not None:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    members = vars(kind).values() if isinstance(kind, type) else (kind,)
    codes = [inspect.unwrap(member).__code__ for member in members if inspect.isfunction(member)]
    cells = sorted({"".join(linecache.getlines(code.co_filename)) for code in codes} - {""})
    return hashlib.sha256("\n".join(cells).encode()).hexdigest() if cells else None


def _hash_of(path: str) -> str | None:
    """The same of the class or function of a dotted path; parsing the settings has imported it."""
    module = path
    while module not in sys.modules:
        module = module.rpartition(".")[0]
        if not module:
            return None
    found: Any = sys.modules[module]
    for name in path.removeprefix(module).split(".")[1:]:
        found = getattr(found, name)
    return class_hash(found)


def class_paths(settings: Any) -> Iterator[str]:
    """Every `class_path` in plain settings, at any depth."""
    if isinstance(settings, dict):
        path = settings.get("class_path")
        if isinstance(path, str):
            yield path
        settings = list(settings.values())
    if isinstance(settings, list):
        for item in settings:
            yield from class_paths(item)
