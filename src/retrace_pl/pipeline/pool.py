"""The command `retrace pool`: the leakage of several finished audits taken together."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from retrace_pl.audit import Cell, combine_leakage, lookup
from retrace_pl.errors import InputError
from retrace_pl.files import read_json, read_tensors
from retrace_pl.metrics import glossary_of
from retrace_pl.pipeline.search_plan import AUDITED, PRIOR
from retrace_pl.report.findings import leakage_table, output_console

COMPARED = {
    "excess": PRIOR,
    "avoidable": "matched_retrain",
    "excess_null": "null",
    "excess_never_trained": "never_trained",
    "excess_wrong_class": "wrong_class",
}
"""Leakage -> the control that it is the difference to."""

SAME = ("data", "deletion", "access", "unlearning", "searcher", "attack", "public_includes_deleted")
"""Settings in which pooled audits must not differ."""


def pool(arguments: list[str]) -> None:
    """Take the leakage of finished audits of several seeds and deleted classes together."""
    try:
        options = make_parser().parse_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from error
    found = pool_runs(options.runs, level=options.level, resamples=options.resamples, seed=options.seed)
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    console = output_console()
    console.print(f"{found['audits']} audit{'s' * (found['audits'] != 1)}")
    table = leakage_table(found)
    if table is not None:
        console.print(table)
    console.print(f"seeds {', '.join(map(str, found['seeds']))}; deleted {', '.join(found['classes'])}", markup=False)
    for note in dict.fromkeys(row["note"] for row in found["leakage"].values() if row["note"]):
        console.print(note, markup=False)


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="retrace pool", description=pool.__doc__, exit_on_error=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished audit")
    parser.add_argument("--level", type=float, default=0.95, help="coverage of the intervals")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap replicates")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resampling")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def pool_runs(folders: Sequence[Path], *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Pools audits that differ in their seed or deleted class alone.

    Args:
        folders: Run folders with `metrics.json` and `evaluation.safetensors`.
        level: Coverage of the intervals.
        resamples: Bootstrap replicates.
        seed: Seed of the resampling.

    Returns:
        Plain types: number of `audits`, `seeds`, `classes`, the `setting` they share, and under `leakage` every
        difference whose control ran in all of them, as in `metrics.json`.

    Raises:
        InputError: A folder holds no finished audit, two audits have the same seed and class, or they differ in more.
        RunError: A file is damaged.
    """
    audits: dict[tuple[int, str], tuple[dict[str, Any], dict[str, Tensor]]] = {}
    for folder in folders:
        metrics, tensors = _read(folder)
        key = (int(metrics["seeds"]["audit"]), " + ".join(metrics["setting"]["deleted_classes"]))
        if key in audits:
            raise InputError(f"{folder}: another of the runs has seed {key[0]} and deleted {key[1]} too; give one")
        audits[key] = metrics, tensors
    metric, setting = _shared([metrics for metrics, _ in audits.values()], folders)
    metrics = next(iter(audits.values()))[0]
    higher = glossary_of(metrics).metrics[metric].direction == "higher"
    options: dict[str, Any] = {"metric": metric, "higher_is_leak": higher, "level": level}
    leakage = {}
    for name, control in COMPARED.items():
        cells: dict[tuple[Hashable, Hashable], Cell] = {
            key: (_outcomes(tensors, AUDITED), _outcomes(tensors, control)) for key, (_, tensors) in audits.items()
        }
        if all(theirs for _, theirs in cells.values()):
            leakage[name] = combine_leakage(cells, resamples=resamples, seed=seed, **options).as_dict()
    return {
        "audits": len(audits),
        "seeds": sorted({first for first, _ in audits}),
        "classes": sorted({second for _, second in audits}),
        "setting": setting,
        "leakage": leakage,
    }


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    paths = [folder / name for name in ("metrics.json", "evaluation.safetensors")]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} does not exist: give folders of finished audits")
    metrics, tensors = read_json(paths[0]), read_tensors(paths[1])
    if not _outcomes(tensors, AUDITED):
        raise InputError(f"{folder} was evaluated by an earlier version; run `retrace evaluate` on it again")
    return metrics, tensors


def _outcomes(tensors: Mapping[str, Tensor], name: str) -> list[Any]:
    """Outcomes of all repeats of a search."""
    prefix = f"outcomes.{name}-"
    found = {int(key.removeprefix(prefix)): value for key, value in tensors.items() if key.startswith(prefix)}
    return [found[repeat].numpy() for repeat in sorted(found)]


def _shared(audits: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> tuple[str, dict[str, Any]]:
    setting = {name: lookup(audits[0], f"setting.{name}") for name in SAME}
    metric = lookup(audits[0], "outcome")
    for audit, folder in zip(audits, folders, strict=True):
        for name in SAME:
            other = lookup(audit, f"setting.{name}")
            if other != setting[name]:
                raise InputError(f"{folder}: {name} is {other}, of {folders[0]} {setting[name]}; pool equal settings")
        if lookup(audit, "outcome") != metric:
            raise InputError(f"{folder}: its candidates are judged by {lookup(audit, 'outcome')}, not by {metric}")
    return str(metric), setting
