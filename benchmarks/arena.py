"""Runs a packaged arena and keeps its tables: which unlearning method leaks least, all of them attacked alike.

    python benchmarks/arena.py --results benchmarks/results

Options that this script does not know go to `retrace arena`, for instance ``--seeds "[0]" --access "[black]"``.
Finished cells of an earlier run in the same folder are not run again. ``arena_NAME.md`` holds the rankings;
``arena_NAME.json`` the main figures of every cell, failed ones included, with the controls at the same budget.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retrace_pl.cli import main as retrace

FIGURES = ("sr_oracle", "mse", "cs", "fid_oracle", "diversity")
PLAIN = ("id", "method", "class_name", "strength", "seed", "forget_class", "access", "attack", "status", "error")
PLAIN += ("unlearning", "original", "retrained", "verdict", "queries", "top_k", "seconds")
QUICK = ["--methods", "[retrain, scrub]", "--seeds", "[0]", "--access", "[black]"]
QUICK += ["--overrides", '{"queries": 1024, "rivals": [], "audit.repeats": 1}']


def compact(cell: dict[str, Any]) -> dict[str, Any]:
    """The main figures of one cell: the attack beside both controls, and leakage with its interval."""
    row = {name: cell[name] for name in PLAIN}
    for arm in ("attack_result", "prior", "matched_retrain"):
        row[arm] = None if cell[arm] is None else {name: cell[arm][name] for name in FIGURES}
    leakage = cell["leakage"] or {}
    row["leakage"] = {
        kind: None if found is None else [found[end] for end in ("value", "low", "high")]
        for kind, found in leakage.items()
    }
    return row


def command_line(options: argparse.Namespace, further: list[str]) -> str:
    """The command behind the figures; where the arena's folder lay does not matter to them."""
    known = f"python benchmarks/arena.py --config {options.config} --jobs {options.jobs} --results {options.results}"
    return " ".join([known, *map(shlex.quote, further)])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two methods, one seed, black-box, 1,024 queries")
    parser.add_argument("--config", default="digits", help="packaged arena")
    parser.add_argument("--jobs", type=int, default=2, help="cells that run at the same time")
    parser.add_argument("--runs", type=Path, default=Path("runs/arena"), help="where the arena's folder goes")
    parser.add_argument("--results", type=Path, help="folder for the two files; without it the table is printed")
    options, further = parser.parse_known_args()
    output = options.runs / (f"{options.config}-quick" if options.quick else options.config)
    command = ["arena", "--config", options.config, "--output", str(output), "--jobs", str(options.jobs)]
    code = retrace([*command, *(QUICK if options.quick else []), *further])
    if code != 0:
        raise SystemExit(code)
    table = (output / "arena.md").read_text(encoding="utf-8")
    if options.results is None:
        print(table)
        return
    found = json.loads((output / "arena.json").read_text(encoding="utf-8"))
    result = {
        "command": command_line(options, further),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {platform.processor() or 'CPU'}",
        "versions": found["versions"],
        "config": found["config"],
        "cells": [compact(cell) for cell in found["cells"]],
    }
    options.results.mkdir(parents=True, exist_ok=True)
    target = options.results / f"arena_{options.config}"
    title, rest = table.split("\n", 1)
    made = f"`{result['command']}`, {result['date']}, {options.jobs} cores of {result['hardware']}"
    seeds = ", ".join(str(seed) for seed in found["config"]["seeds"])
    target.with_suffix(".md").write_text(f"{title}\n\n{made}; seeds {seeds}.\n{rest}", encoding="utf-8")
    lines = ",\n".join(json.dumps(cell) for cell in result.pop("cells"))
    head = json.dumps(result, indent=1)[:-2]
    target.with_suffix(".json").write_text(f'{head},\n "cells": [\n{lines}\n]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
