"""Everything an arena shows, written from the records of its cells; nothing here runs an audit."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from retrace_pl.arena.record import SCHEMA, CellRecord
from retrace_pl.files import write_json

ARENA = "arena.json"
PACKAGES = ("retrace_pl", "torch", "torchvision", "lightning", "stable-baselines3", "numpy", "scikit-learn")


def write_results(
    output: Path, config: Mapping[str, Any], records: Sequence[CellRecord], missing: Sequence[str] = ()
) -> list[Path]:
    """Writes the results of an arena; called after every run, also an interrupted one.

    Args:
        output: the arena's folder.
        config: the arena's settings as plain values, `name`, `gate`, `level` and `bootstrap_samples` among them.
        records: the cells of this configuration that have run, failed ones included, in the arena's order.
        missing: ids of its cells that have not run yet.

    Returns:
        The files written.
    """
    path = output / ARENA
    write_json(
        path,
        {
            "schema": SCHEMA,
            "name": config["name"],
            "config": dict(config),
            "versions": versions(),
            "cells": [asdict(record) for record in records],
            "missing": list(missing),
        },
    )
    return [path]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
