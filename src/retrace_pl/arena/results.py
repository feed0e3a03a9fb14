"""Everything an arena shows, written from the records of its cells; nothing here runs an audit."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from retrace_pl.arena.markdown import write_markdown
from retrace_pl.arena.page import write_page
from retrace_pl.arena.pareto import pareto_section
from retrace_pl.arena.ranking import rank_records, ranking_section
from retrace_pl.arena.record import SCHEMA, CellRecord
from retrace_pl.arena.tensorboard import write_hparams
from retrace_pl.files import write_json

ARENA = "arena.json"
PACKAGES = ("retrace_pl", "torch", "torchvision", "lightning", "stable-baselines3", "numpy", "scikit-learn")


def write_results(
    output: Path,
    config: Mapping[str, Any],
    records: Sequence[CellRecord],
    missing: Sequence[str] = (),
    command: str | None = None,
) -> list[Path]:
    """Writes the results of an arena; called after every run, also an interrupted one.

    Args:
        output: the arena's folder.
        config: the arena's settings as plain values, `name`, `gate`, `level` and `bootstrap_samples` among them.
        records: the cells of this configuration that have run, failed ones included, in the arena's order.
        missing: ids of its cells that have not run yet.
        command: the command line that ran them.

    Returns:
        What was written: `arena.json`, `arena.html`, `arena.md` and the folder of TensorBoard runs.
    """
    path, used = output / ARENA, versions()
    boards = rank_records(records, config, missing)
    write_json(
        path,
        {
            "schema": SCHEMA,
            "name": config["name"],
            "command": command,
            "config": dict(config),
            "versions": used,
            "ranking": ranking_section(boards),
            "pareto": pareto_section(boards),
            "cells": [asdict(record) for record in records],
            "missing": list(missing),
        },
    )
    page = write_page(output, config, records, missing, boards, used, command)
    return [path, page, write_markdown(output, config, records, missing, boards), write_hparams(output, records)]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
