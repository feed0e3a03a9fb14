"""One setting at a time: ``python benchmarks/ablation.py [--quick] [--json FILE]``.

Every file of ``configs/ablation/`` is merged over the digits audit and ``base.yaml``, as in
``retrace audit --config digits --config configs/ablation/base.yaml --config configs/ablation/tau-0.yaml``. Searcher,
latent settings, trace, attack, access and budget come from there; models and data from the search benchmark (digits,
class 3 deleted by retraining, absent from the public set). Scores of different signals, signs and normalisers are not
comparable; the other columns, explained in ``search.py``, are. ``instance_mse``: best single guess to the nearest
deleted record.

Cells are stored as they finish; a rerun with the same ``--json`` goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import search
from _presets import CONFIGS
from retrace_pl.attacks import AttackContext, ReTrace
from retrace_pl.metrics import NearestMSE
from retrace_pl.pipeline.config import AuditConfig
from retrace_pl.pipeline.parsing import parse
from retrace_pl.pipeline.scoring import build_scorer
from retrace_pl.traces import ModelPair

FOLDER = CONFIGS / "ablation"
COLUMNS = ("score_top64", "sr_oracle", "nearest_mse", "instance_mse", "fid_oracle", "diversity_share", "seconds")
SHOWN = {"nearest_mse": ".4f", "instance_mse": ".4f", "diversity_share": ".2f", "fid_oracle": ".1f", "seconds": ".1f"}


def names() -> list[str]:
    """The ablations, ``base`` first."""
    return sorted((file.stem for file in FOLDER.glob("*.yaml")), key=lambda name: (name != "base", name))


def settings(name: str) -> AuditConfig:
    """The audit that an ablation describes."""
    files = dict.fromkeys(["digits", str(FOLDER / "base.yaml"), str(FOLDER / f"{name}.yaml")])
    arguments = [argument for file in files for argument in ("--config", file)]
    config: AuditConfig = parse("audit", "", arguments).config
    return config


def measure(models: search.Models, config: AuditConfig, queries: int | None = None) -> dict[str, Any]:
    """One cell: one ablation, one seed."""
    pair = ModelPair(models.original, models.unlearned["retrain"], config.access, memory_format="channels_last")
    scorer = build_scorer(config.traces, pair, config.traces.weights, "class")
    scorer.fit(models.public)
    context = AttackContext(
        pair,
        scorer,
        models.generator,
        config.latent,
        budget=queries or config.queries,
        seed=models.seed,
        searcher=config.searcher,
    )
    assert isinstance(config.attack, ReTrace)
    start = time.process_time()
    found = config.attack.reconstruct(context)
    seconds = time.process_time() - start
    assert found.pool is not None
    instance = NearestMSE(models.deleted)
    instance.update(found.instance)
    return {
        "score_top64": found.pool.top_mean(64),
        **search.judge(models, found.inputs),
        "instance_mse": float(instance.compute()),
        "seconds": seconds,
        "queries": found.queries,
    }


def table(cells: list[dict[str, Any]]) -> str:
    """Markdown table: means over seeds, and the lowest success."""
    heads = ("ablation", "seeds", "queries", *COLUMNS, "lowest sr_oracle")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in sorted({cell["ablation"] for cell in cells}, key=lambda name: (name != "base", name)):
        rows = [cell for cell in cells if cell["ablation"] == name]
        means = {column: sum(row[column] for row in rows) / len(rows) for column in COLUMNS}
        shown = [format(value, SHOWN.get(column, ".3f")) for column, value in means.items()]
        lowest = min(row["sr_oracle"] for row in rows)
        lines.append(f"| {name} | {len(rows)} | {rows[0]['queries']} | {' | '.join(shown)} | {lowest:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed and 2,048 queries for every ablation")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the cells to this file as they finish")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ablations", nargs="+", choices=names(), default=names())
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where trained models are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = search.stored(arguments.json)
    for seed in range(1 if arguments.quick else arguments.seeds):
        models = None
        for name in arguments.ablations:
            key = {"ablation": name, "seed": seed, "quick": arguments.quick}
            if any(key.items() <= done.items() for done in result["cells"]):
                continue
            if models is None:
                models = search.build("digits", seed, search.digits.DELETED_CLASS, arguments.cache)
            result["cells"].append(key | measure(models, settings(name), 2048 if arguments.quick else None))
            print(json.dumps(result["cells"][-1]), flush=True)
            search.write(arguments.json, result)
    print(f"\n{table(result['cells'])}")


if __name__ == "__main__":
    main()
