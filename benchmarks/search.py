"""Equal-budget comparison of searchers on the digits setting: ``python benchmarks/search.py [--quick] [--json FILE]``.

One class of scikit-learn's digits is deleted by retraining; the generator never saw it. Every searcher gets the same
number of queries; the attack's own selection then picks 64 candidates. ``score_top64`` is the mean of the 64 best
scores of the pool; ``sr_oracle``, ``nearest_mse`` and ``diversity`` describe the selection.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from _digits_setting import DELETED_CLASS, Setting, build
from retrace_pl.attacks import AttackContext, ReTrace
from retrace_pl.envs import LatentSettings
from retrace_pl.metrics import Diversity, NearestMSE
from retrace_pl.searchers import CEMSearcher, RandomSearcher, SB3Searcher, Searcher

COLUMNS = ("score_top64", "sr_oracle", "nearest_mse", "diversity", "seconds", "queries")
DEFAULT = LatentSettings()
SEARCHERS: dict[str, tuple[Callable[[], Searcher], LatentSettings]] = {
    "random": (RandomSearcher, DEFAULT),
    "cem": (CEMSearcher, DEFAULT),
    "ppo_tau0": (SB3Searcher, replace(DEFAULT, tau=0.0)),
    "ppo": (SB3Searcher, DEFAULT),
}


def measure(
    setting: Setting, name: str, seed: int, queries: int, access: str, tail: Literal["open", "clip"] = "open"
) -> dict[str, Any]:
    """One cell: one searcher, one seed."""
    make, latent = SEARCHERS[name]
    context = AttackContext(
        pair=None,
        scorer=setting.scorer(access, tail),
        generator=setting.generator,
        latent=latent,
        budget=queries,
        seed=seed,
    )
    start = time.perf_counter()
    found = ReTrace(make(), top_k=64).reconstruct(context)
    seconds = time.perf_counter() - start
    nearest, diversity = NearestMSE(setting.deleted), Diversity()
    nearest.update(found.inputs)
    diversity.update(found.inputs)
    with torch.no_grad():
        oracle = (setting.evaluator(found.inputs).argmax(1) == DELETED_CLASS).float().mean()
    return {
        "searcher": name,
        "seed": seed,
        "queries": found.queries,
        "score_top64": found.pool.top_mean(64),
        "sr_oracle": float(oracle),
        "nearest_mse": float(nearest.compute()),
        "diversity": float(diversity.compute()),
        "seconds": seconds,
    }


def own_diversity(inputs: torch.Tensor) -> float:
    """Mean pairwise distance within the deleted class."""
    metric = Diversity()
    metric.update(inputs)
    return float(metric.compute())


def table(cells: list[dict[str, Any]]) -> str:
    """Markdown table: mean over seeds, and the worst seed of the score."""
    lines = [
        f"| searcher | {' | '.join(COLUMNS)} | lowest score_top64 | lowest diversity |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for name in dict.fromkeys(cell["searcher"] for cell in cells):
        rows = [cell for cell in cells if cell["searcher"] == name]
        values = [sum(row[column] for row in rows) / len(rows) for column in COLUMNS]
        shown = [f"{value:.4f}" for value in values[:4]] + [f"{values[4]:.1f}", f"{values[5]:.0f}"]
        lowest = [f"{min(row[column] for row in rows):.4f}" for column in ("score_top64", "diversity")]
        lines.append(f"| {name} | {' | '.join(shown + lowest)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds and 4,096 queries")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all cells to this file")
    parser.add_argument("--seeds", type=int, default=None, help="number of seeds (5; with --quick 2)")
    parser.add_argument("--queries", type=int, default=None, help="query budget (20480; with --quick 4096)")
    parser.add_argument("--access", choices=("black", "gray", "white"), default="black")
    parser.add_argument("--tail", choices=("open", "clip"), default="open", help="upper end of the score's scale")
    parser.add_argument("--searchers", nargs="+", choices=tuple(SEARCHERS), default=list(SEARCHERS))
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where trained models are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds = arguments.seeds or (2 if arguments.quick else 5)
    queries = arguments.queries or (4096 if arguments.quick else 20480)

    cells: list[dict[str, Any]] = []
    own: list[float] = []
    for seed in range(seeds):
        setting = build(seed, arguments.cache)
        own.append(own_diversity(setting.deleted))
        accuracies = ", ".join(f"{name} {value:.3f}" for name, value in setting.accuracy.items())
        print(f"seed {seed}: accuracies {accuracies}; the deleted class's own diversity {own[-1]:.4f}", flush=True)
        for name in arguments.searchers:
            cells.append(measure(setting, name, seed, queries, arguments.access, arguments.tail))
            print("  " + json.dumps(cells[-1]), flush=True)
    deleted_class_diversity = sum(own) / len(own)
    print(f"\n{table(cells)}\n\ndeleted class's own diversity: {deleted_class_diversity:.4f}")
    if arguments.json:
        result = {
            "cells": cells,
            "deleted_class_diversity": deleted_class_diversity,
            "deleted_class_diversity_by_seed": own,
            "access": arguments.access,
            "tail": arguments.tail,
            "machine": {
                "processor": platform.machine(),
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
