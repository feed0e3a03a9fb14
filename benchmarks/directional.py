"""The directional score beside the paper's trace: ``python benchmarks/directional.py [--quick] [--json FILE]``.

Fashion-MNIST, one class deleted, public set and generator without it, black-box access, an equal query budget for every
searcher; see ``_fashion_setting``. Figures are of the 200 best candidates of each search, ``diverse_*`` of the attack's
diverse selection of 200; where the score infers several classes, each has an equal share of both and of the budget.
``sr_oracle``: share that the independent evaluator takes for the deleted class; ``fid_oracle``: Frechet distance to the
deleted records in its features; ``diversity``: mean pairwise squared distance, to be read beside the class's own;
``score_last``: mean score of the last 1,024 queries, where the searcher ended up.

Every lever of the ablation is a searcher name. With ``--json`` an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

from _fashion_setting import CLASSES, UNLEARNERS, Setting, build
from _presets import instantiate
from retrace_pl.attacks import AttackContext, ReTrace
from retrace_pl.attacks.by_class import ByClass, scorers_by_class
from retrace_pl.envs import LatentSettings
from retrace_pl.metrics import Diversity, FeatureFID, NearestMSE
from retrace_pl.searchers import CEMSearcher, MixtureSearcher, RandomSearcher, SB3Searcher, Searcher
from retrace_pl.tasks.reference import evaluate_inputs
from retrace_pl.traces import DirectionalScorer, ModelPair, TraceScorer
from retrace_pl.traces.directional import Scale

Signal = Literal["gap", "directional"]
DEFAULT = LatentSettings()
FREE = replace(DEFAULT, tau=0.0)
TOP_K = 200
RECORDS = 2000
DIGITS = {"fid_oracle": 1, "nearest_mse": 4}
COLUMNS = ("score_top64", "sr_oracle", "fid_oracle", "diversity", "nearest_mse", "diverse_sr_oracle", "score_last")


def ppo(**settings: Any) -> Callable[[], Searcher]:
    """PPO with settings other than the package's defaults."""
    return lambda: SB3Searcher(**settings)


def mixture(policies: int, **settings: Any) -> Callable[[], Searcher]:
    """Several PPO policies that share the budget."""
    return lambda: MixtureSearcher([SB3Searcher(**settings) for _ in range(policies)])


SEARCHERS: dict[str, tuple[Callable[[], Searcher], LatentSettings]] = {
    "random": (RandomSearcher, DEFAULT),
    "cem": (CEMSearcher, DEFAULT),
    "ppo": (lambda: instantiate("searcher/ppo_mixture"), FREE),
    "ppo_16_units": (SB3Searcher, FREE),
    "ppo_rollout_512": (
        ppo(num_envs=256, n_steps=2, learning_rate=3e-3, net_arch=(64, 64), log_std_init=-0.5),
        FREE,
    ),
    "ppo_64x64": (ppo(net_arch=(64, 64)), FREE),
    "ppo_32_units": (ppo(net_arch=(32,)), FREE),
    "ppo_8_units": (ppo(net_arch=(8,)), FREE),
    "ppo_2_units": (ppo(net_arch=(2,)), FREE),
    "ppo_more_noise": (ppo(log_std_init=-0.5), FREE),
    "ppo_less_noise": (ppo(log_std_init=-2.0), FREE),
    "ppo_tau_0.002": (SB3Searcher, DEFAULT),
    "ppo_tau_0.01": (SB3Searcher, replace(DEFAULT, tau=0.01)),
    "ppo_slow": (ppo(learning_rate=3e-3), FREE),
    "ppo_256_envs": (ppo(num_envs=256), FREE),
    "ppo_2_steps": (ppo(n_steps=2), FREE),
    "ppo_wide_clip": (ppo(clip_range=0.4), FREE),
    "ppo_off_sphere": (SB3Searcher, replace(FREE, projection="none")),
    "ppo_warm_start": (ppo(warm_start=4096), FREE),
    "ppo_mixture_3": (mixture(3, num_envs=64, net_arch=(6,)), FREE),
    "ppo_mixture_4": (mixture(4, num_envs=32, net_arch=(4,)), FREE),
    "ppo_mixture_2_wide": (mixture(2, net_arch=(16,)), FREE),
}


def make_scorer(
    setting: Setting, unlearner: str, signal: Signal, access: str = "black", scale: Scale = "log"
) -> TraceScorer:
    """The fitted score of one pair; the directional one infers the class itself."""
    pair = ModelPair(setting.original, setting.unlearned[unlearner], access, memory_format="channels_last")
    scorer = DirectionalScorer(pair, scale=scale) if signal == "directional" else TraceScorer(pair)
    scorer.fit(setting.public)
    return scorer


def measure(setting: Setting, scorer: TraceScorer, name: str, queries: int) -> dict[str, Any]:
    """One cell: one fitted score, one searcher."""
    make, latent = SEARCHERS[name]
    context = AttackContext(
        pair=scorer.pair,
        scorer=scorer,
        generator=setting.generator,
        latent=latent,
        budget=queries,
        seed=setting.seed,
    )
    core, search = context.core(), ByClass(make(), scorers_by_class(scorer))
    start = time.perf_counter()
    pool = search.search(core, queries, setting.seed)
    seconds = time.perf_counter() - start
    best = search.select(pool, TOP_K, lambda part, k: part.top_k(k, setting.seed))
    attack = ReTrace(top_k=TOP_K)
    diverse = search.select(pool, TOP_K, lambda part, k: attack.choose(core, part, k, setting.seed))
    return {
        "inferred": list(scorer.classes) if isinstance(scorer, DirectionalScorer) else None,
        "public_queries": len(setting.public),
        "score_top64": pool.top_mean(64),
        "score_last": float(pool.scores[-1024:].mean()),
        **judge(setting, core.generate(pool.latents[best])),
        **{f"diverse_{key}": value for key, value in judge(setting, core.generate(pool.latents[diverse])).items()},
        "seconds": seconds,
    }


def judge(setting: Setting, inputs: torch.Tensor) -> dict[str, float]:
    """What the attacker cannot measure."""
    found = evaluate_inputs(setting.evaluator, inputs)
    fid, nearest, diversity = FeatureFID(reference(setting)), NearestMSE(setting.deleted), Diversity()
    fid.update(found.features)
    nearest.update(inputs)
    diversity.update(inputs)
    return {
        "sr_oracle": float((found.labels == setting.deleted_class).float().mean()),
        "fid_oracle": float(fid.compute()),
        "diversity": float(diversity.compute()),
        "nearest_mse": float(nearest.compute()),
    }


def reference(setting: Setting) -> torch.Tensor:
    """The evaluator's features of the deleted records; of 2,000 of them at most."""
    order = torch.randperm(len(setting.deleted), generator=torch.Generator().manual_seed(0))
    return evaluate_inputs(setting.evaluator, setting.deleted[order[:RECORDS]]).features


@torch.no_grad()
def prior_success(setting: Setting) -> float:
    """Share of 2,000 of the generator's own samples that the evaluator takes for the deleted class."""
    latents = setting.generator.sample_latents(RECORDS, torch.Generator().manual_seed(setting.seed))
    labels = evaluate_inputs(setting.evaluator, setting.generator(latents)).labels
    return float((labels == setting.deleted_class).float().mean())


def own_diversity(setting: Setting) -> float:
    """Mean pairwise squared distance within the deleted class."""
    metric = Diversity()
    metric.update(setting.deleted)
    return float(metric.compute())


def table(cells: list[dict[str, Any]], by: tuple[str, ...]) -> str:
    """Markdown table: means over the cells that share the columns ``by``, and the lowest success."""
    lines = [
        f"| {' | '.join(by)} | cells | {' | '.join(COLUMNS)} | lowest sr_oracle |",
        "|---" * (len(by) + len(COLUMNS) + 2) + "|",
    ]
    for key in dict.fromkeys(tuple(cell[name] for name in by) for cell in cells):
        rows = [cell for cell in cells if tuple(cell[name] for name in by) == key]
        values = [sum(row[column] for row in rows) / len(rows) for column in COLUMNS]
        shown = [
            f"{value:.1f}" if name == "fid_oracle" else f"{value:.3f}"
            for name, value in zip(COLUMNS, values, strict=True)
        ]
        lowest = min(row["sr_oracle"] for row in rows)
        lines.append(f"| {' | '.join(map(str, key))} | {len(rows)} | {' | '.join(shown)} | {lowest:.2f} |")
    return "\n".join(lines)


def goals(cells: list[dict[str, Any]], searcher: str = "ppo") -> list[dict[str, Any]]:
    """Whether a searcher reaches the three goals with the directional score, cell by cell."""
    found = []
    for cell in cells:
        if cell["signal"] != "directional" or cell["searcher"] != searcher:
            continue
        same = ("class", "seed", "unlearner", "signal", "access", "scale", "queries")
        rivals = [c for c in cells if c["searcher"] == "cem" and all(c[name] == cell[name] for name in same)]
        found.append(
            {name: cell[name] for name in ("class", "seed", "unlearner")}
            | {
                "success": cell["sr_oracle"] >= 0.9,
                "diversity": cell["diversity"] >= cell["own_diversity"] / 2,
                "fid": cell["fid_oracle"] < rivals[0]["fid_oracle"] if rivals else None,
            }
        )
    return found


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, class 8, 8,192 queries")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all cells to this file after each of them")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds (0 1 2; with --quick 0)")
    parser.add_argument("--classes", type=int, nargs="+", help="deleted classes (1 5 8; with --quick 8)")
    parser.add_argument("--queries", type=int, help="query budget (20480; with --quick 8192)")
    parser.add_argument("--unlearners", nargs="+", choices=UNLEARNERS, default=list(UNLEARNERS))
    parser.add_argument("--signals", nargs="+", choices=("gap", "directional"), default=["directional", "gap"])
    parser.add_argument("--searchers", nargs="+", choices=tuple(SEARCHERS), default=["ppo", "cem", "random"])
    parser.add_argument("--access", choices=("black", "gray", "white"), default="black")
    parser.add_argument("--scale", choices=("log", "linear"), default="log", help="scale of the directional score")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where trained models are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    classes = arguments.classes or ([8] if arguments.quick else list(CLASSES))
    queries = arguments.queries or (8192 if arguments.quick else 20480)

    result: dict[str, Any] = {"cells": [], "accuracy": {}, "machine": machine()}
    if arguments.json and arguments.json.exists():
        result = json.loads(arguments.json.read_text(encoding="utf-8"))
    for seed, deleted_class in product(seeds, classes):
        setting = build(seed, deleted_class, arguments.cache)
        own = own_diversity(setting)
        prior = {"prior_sr_oracle": prior_success(setting)}
        result["accuracy"][f"seed {seed}, class {deleted_class}"] = setting.accuracy | prior
        for signal, unlearner in product(arguments.signals, arguments.unlearners):
            same = {"seed": seed, "class": deleted_class, "unlearner": unlearner, "signal": signal}
            same |= {"access": arguments.access, "scale": arguments.scale if signal == "directional" else None}
            same |= {"queries": queries}
            keys = {name: same | {"searcher": name} for name in arguments.searchers}
            missing = [name for name, key in keys.items() if not any(key.items() <= c.items() for c in result["cells"])]
            if not missing:
                continue
            scorer = make_scorer(setting, unlearner, signal, arguments.access, arguments.scale)
            for name in missing:
                cell = keys[name] | measure(setting, scorer, name, queries) | {"own_diversity": own}
                result["cells"].append(cell)
                print(json.dumps(cell), flush=True)
                write(arguments.json, result)
        write(arguments.json, result)
    print("\n" + table(result["cells"], ("signal", "unlearner", "searcher")))
    print("\n" + table(result["cells"], ("signal", "class", "searcher")))
    for row in goals(result["cells"]):
        print(json.dumps(row))


def write(path: Path | None, result: dict[str, Any]) -> None:
    """Store what was measured so far."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, str]:
    """Versions behind the numbers."""
    return {"processor": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}


if __name__ == "__main__":
    main()
