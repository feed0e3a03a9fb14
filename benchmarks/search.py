"""Equal-budget comparison of searchers: ``python benchmarks/search.py [--data digits] [--quick] [--json FILE]``.

One class is deleted by retraining, negative gradient or fine-tuning; the public set and the generator never saw it. A
cell is one pair of models, one searcher, one seed; every searcher gets the same number of queries, with the packaged
presets of ``configs/searcher/``. The attack then selects 64 candidates on digits, 200 on Fashion-MNIST.

``score_top64``: mean of the 64 best scores of the pool. Of the selection, ``sr_oracle``: share that an independent
evaluator takes for the deleted class; ``nearest_mse``: to the nearest deleted record; ``fid_oracle``: Frechet distance
to the deleted records in the evaluator's features; ``diversity``: mean pairwise squared distance, and as a share of the
deleted class's own. ``share``: queries after which PPO's pool has random search's final ``score_top64``, as a share of
the budget.

Cells are stored as they finish; a rerun with the same ``--json`` goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

import _digits_setting as digits
import _fashion_setting as fashion
from _presets import instantiate
from retrace_pl.attacks import AttackContext, ReTrace
from retrace_pl.envs import LatentSettings
from retrace_pl.metrics import Diversity, FeatureFID, NearestMSE
from retrace_pl.models import Classifier, Generator
from retrace_pl.searchers import Searcher
from retrace_pl.tasks.reference import evaluate_inputs
from retrace_pl.traces import FixedQuantile, ModelPair, TraceScorer

DATA = ("digits", "fashion_mnist")
UNLEARNERS = digits.UNLEARNERS
COLUMNS = ("score_top64", "sr_oracle", "nearest_mse", "fid_oracle", "diversity", "diversity_share", "seconds")
SHOWN = {"nearest_mse": ".4f", "diversity": ".4f", "diversity_share": ".2f", "fid_oracle": ".1f", "seconds": ".1f"}
KEYS = ("data", "class", "seed", "unlearner", "access", "tail", "queries", "searcher")
RIVALS = ("random", "cem", "cma_es", "sac")
RECORDS = 2000
DEFAULT = LatentSettings()


def preset(name: str) -> Callable[[], Searcher]:
    """The packaged searcher of this name."""
    return lambda: instantiate(f"searcher/{name}")


SEARCHERS: dict[str, tuple[Callable[[], Searcher], LatentSettings]] = {
    "random": (preset("random"), DEFAULT),
    "cem": (preset("cem"), DEFAULT),
    "cma_es": (preset("cma_es"), DEFAULT),
    "sac": (preset("sac_rlb_mi"), DEFAULT),
    "ppo": (preset("ppo"), DEFAULT),
    "ppo_tau0": (preset("ppo"), replace(DEFAULT, tau=0.0)),
}


@dataclass
class Models:
    """One seed and class of either data set; ``deleted`` and ``evaluator`` are kept from the attacker."""

    seed: int
    deleted_class: int
    original: Classifier
    unlearned: dict[str, Classifier]
    evaluator: Classifier
    generator: Generator
    public: torch.Tensor
    deleted: torch.Tensor
    accuracy: dict[str, float]

    def scorer(self, unlearner: str, access: str, tail: Literal["open", "clip"] = "open") -> TraceScorer:
        """The paper's trace of one pair, fitted on the public inputs."""
        pair = ModelPair(self.original, self.unlearned[unlearner], access, memory_format="channels_last")
        scorer = TraceScorer(pair, normaliser=FixedQuantile(tail=tail))
        scorer.fit(self.public)
        return scorer


def build(data: str, seed: int, deleted_class: int, cache: Path) -> Models:
    """Train, or read from the cache, what a cell needs."""
    if data == "digits":
        found = digits.build(seed, cache, unlearners=UNLEARNERS)
        unlearned = {"retrain": found.unlearned, **found.forgotten}
    else:
        found = fashion.build(seed, deleted_class, cache)  # type: ignore[assignment]
        unlearned = found.unlearned  # type: ignore[assignment]
    return Models(
        seed,
        deleted_class,
        found.original,
        unlearned,
        found.evaluator,
        found.generator,
        found.public,
        found.deleted,
        found.accuracy,
    )


def measure(models: Models, scorer: TraceScorer, name: str, queries: int, top_k: int = 64) -> dict[str, Any]:
    """One cell: one fitted score, one searcher."""
    make, latent = SEARCHERS[name]
    context = AttackContext(scorer.pair, scorer, models.generator, latent, budget=queries, seed=models.seed)
    start = time.process_time()
    found = ReTrace(make(), top_k=top_k).reconstruct(context)
    seconds = time.process_time() - start
    assert found.pool is not None
    assert found.queries == queries
    return {
        "score_top64": found.pool.top_mean(64),
        **judge(models, found.inputs),
        "seconds": seconds,
        "curve": [[count, round(mean, 5)] for count, _, mean in found.curve],
    }


def judge(models: Models, inputs: torch.Tensor) -> dict[str, float]:
    """What the attacker cannot measure."""
    order = torch.randperm(len(models.deleted), generator=torch.Generator().manual_seed(0))[:RECORDS]
    records = evaluate_inputs(models.evaluator, models.deleted[order])
    found = evaluate_inputs(models.evaluator, inputs)
    fid, nearest = FeatureFID(records.features), NearestMSE(models.deleted)
    fid.update(found.features)
    nearest.update(inputs)
    own, diversity = spread(models.deleted), spread(inputs)
    return {
        "sr_oracle": float((found.labels == models.deleted_class).float().mean()),
        "nearest_mse": float(nearest.compute()),
        "fid_oracle": float(fid.compute()),
        "diversity": diversity,
        "diversity_share": diversity / own,
    }


def spread(inputs: torch.Tensor) -> float:
    """Mean pairwise squared distance."""
    metric = Diversity()
    metric.update(inputs)
    return float(metric.compute())


def table(cells: list[dict[str, Any]], by: tuple[str, ...] = ("data", "unlearner", "searcher")) -> str:
    """Markdown table: means over the cells that share the columns ``by``."""
    heads = (*by, "cells", *COLUMNS)
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for key in dict.fromkeys(tuple(cell[name] for name in by) for cell in cells):
        rows = [cell for cell in cells if tuple(cell[name] for name in by) == key]
        means = {column: sum(row[column] for row in rows) / len(rows) for column in COLUMNS}
        shown = [format(value, SHOWN.get(column, ".3f")) for column, value in means.items()]
        lines.append(f"| {' | '.join(map(str, key))} | {len(rows)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def goals(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For every pair of models: where PPO stands against random search and the best of its rivals.

    ``share`` is None where PPO never has random search's score; ``mse`` and ``fid`` are PPO's over the best rival's.
    """
    rows = []
    same = [name for name in KEYS if name != "searcher"]
    groups: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[name] for name in same), {})[cell["searcher"]] = cell
    for key, group in groups.items():
        if not {"random", "ppo"} <= group.keys():
            continue
        ours, rivals = group["ppo"], [group[name] for name in RIVALS if name in group]
        best = {column: min(rivals, key=lambda cell: cell[column]) for column in ("nearest_mse", "fid_oracle")}
        rows.append(
            dict(zip(same, key, strict=True))
            | {
                "share": share(ours, group["random"]["score_top64"]),
                "mse": ours["nearest_mse"] / best["nearest_mse"]["nearest_mse"],
                "best_mse": best["nearest_mse"]["searcher"],
                "fid": ours["fid_oracle"] / best["fid_oracle"]["fid_oracle"],
                "best_fid": best["fid_oracle"]["searcher"],
                "diversity_share": ours["diversity_share"],
            }
        )
    return rows


def share(cell: dict[str, Any], score: float) -> float | None:
    """Queries to a score as a share of the budget, to about a hundredth."""
    reached = (count for count, mean in cell["curve"] if mean >= score)
    first = next(reached, None)
    return None if first is None else first / cell["queries"]


def goals_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: every pair of models, and how many of them meet each goal."""
    lines = [
        "| data | unlearner | class | seed | PPO reaches random's score after | nearest MSE over the best rival's "
        "| fid_oracle over the best rival's | diversity share |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        reached = "never" if row["share"] is None else f"{100 * row['share']:.0f} %"
        lines.append(
            f"| {row['data']} | {row['unlearner']} | {row['class']} | {row['seed']} | {reached} "
            f"| {row['mse']:.2f} ({row['best_mse']}) | {row['fid']:.2f} ({row['best_fid']}) "
            f"| {row['diversity_share']:.2f} |"
        )
    met = {
        "(a) at most a quarter": sum(row["share"] is not None and row["share"] <= 0.25 for row in rows),
        "(b) MSE no worse": sum(row["mse"] <= 1 for row in rows),
        "(b) fid_oracle no worse": sum(row["fid"] <= 1 for row in rows),
        "(c) half the diversity": sum(row["diversity_share"] >= 0.5 for row in rows),
    }
    return "\n".join([*lines, "", "; ".join(f"{name}: {count} of {len(rows)}" for name, count in met.items())])


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, 4,096 queries, retraining only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the cells to this file as they finish")
    parser.add_argument("--data", nargs="+", choices=DATA, default=["digits"])
    parser.add_argument("--classes", type=int, nargs="+", default=[8], help="deleted classes of Fashion-MNIST")
    parser.add_argument("--unlearners", nargs="+", choices=UNLEARNERS, default=None)
    parser.add_argument("--seeds", type=int, default=None, help="number of seeds (5; with --quick 2)")
    parser.add_argument("--first-seed", type=int, default=0, help="the lowest of them (0)")
    parser.add_argument("--queries", type=int, default=None, help="query budget (20480; with --quick 4096)")
    parser.add_argument("--access", choices=("black", "gray", "white"), default="black")
    parser.add_argument("--tail", choices=("open", "clip"), default="open", help="upper end of the score's scale")
    parser.add_argument("--searchers", nargs="+", choices=tuple(SEARCHERS), default=[*RIVALS, "ppo"])
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where trained models are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quick = arguments.quick
    unlearners = arguments.unlearners or (UNLEARNERS[:1] if quick else UNLEARNERS)
    queries = arguments.queries or (4096 if quick else 20480)
    result = stored(arguments.json)
    seeds = range(arguments.first_seed, arguments.first_seed + (arguments.seeds or (2 if quick else 5)))
    for data, seed in product(arguments.data, seeds):
        for deleted_class in [digits.DELETED_CLASS] if data == "digits" else arguments.classes:
            cells = [
                dict(zip(KEYS, (data, deleted_class, seed, *rest, queries, name), strict=True))
                for *rest, name in product(unlearners, [arguments.access], [arguments.tail], arguments.searchers)
            ]
            cells = [key for key in cells if not any(key.items() <= done.items() for done in result["cells"])]
            if not cells:
                continue
            models = build(data, seed, deleted_class, arguments.cache)
            result["accuracy"][f"{data}, class {deleted_class}, seed {seed}"] = models.accuracy
            for key in cells:
                scorer = models.scorer(key["unlearner"], arguments.access, arguments.tail)
                top_k = 64 if data == "digits" else 200
                result["cells"].append(key | measure(models, scorer, key["searcher"], queries, top_k))
                print(json.dumps({k: v for k, v in result["cells"][-1].items() if k != "curve"}), flush=True)
                write(arguments.json, result)
    print(f"\n{table(result['cells'])}\n\n{goals_table(goals(result['cells']))}")


def stored(path: Path | None) -> dict[str, Any]:
    """What an earlier run left in the file."""
    if path is not None and path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    versions = {"processor": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
    return {"machine": versions, "accuracy": {}, "cells": []}


def write(path: Path | None, result: dict[str, Any]) -> None:
    """Replace the file, one cell per line."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({name: value for name, value in result.items() if name != "cells"}, indent=1)[:-2]
    cells = ",\n".join(json.dumps(cell) for cell in result["cells"])
    partial = path.with_suffix(".partial")
    partial.write_text(f'{head},\n "cells": [\n{cells}\n ]\n}}\n', encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main()
