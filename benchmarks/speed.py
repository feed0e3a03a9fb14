"""What the search costs beside the models it asks: ``python benchmarks/speed.py [--quick] [--json FILE]``.

Three ratios, each from timings of one run on one machine, alternating between the two sides (medians of the repeats):

- ``search_over_bare_scoring``: candidates per second of a whole PPO search over those of only generating and scoring
  candidates in the same batches. 1 means that learning costs nothing; higher is better.
- ``over_dummy_vec_env``: candidates per second of the batched Stable-Baselines3 environment over those of as many
  single environments in a DummyVecEnv, same actions. Higher is better.
- ``over_single_candidate_sac``: queries per second of the PPO search over those of SAC with one candidate per step and
  one update per query, the set-up of RLB-MI (CVPR 2023). Higher is better.

The weights are untrained: timings do not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from retrace_pl.envs import LatentCore, LatentEnv
from retrace_pl.envs.sb3 import LatentVecEnv
from retrace_pl.models import DCGAN, SmallCNN
from retrace_pl.searchers import SB3Searcher
from retrace_pl.traces import ModelPair, TraceScorer

NUM_ENVS = 256


def build(access: str) -> tuple[DCGAN, TraceScorer]:
    """Untrained models of the digits setting, and a scorer fitted on generated images."""
    torch.manual_seed(0)
    generator = DCGAN((1, 16, 16), latent_dim=64).eval().requires_grad_(False)
    scorer = TraceScorer(ModelPair(SmallCNN(1, 10), SmallCNN(1, 10), access))
    scorer.fit(generator(torch.randn(512, 64)))
    return generator, scorer


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def bare(core: LatentCore, queries: int) -> None:
    """Only generate and score, in the search's batches."""
    core.restart(queries, seed=0)
    for _ in range(queries // NUM_ENVS):
        core.evaluate(core.prior(NUM_ENVS))


def roll(env: VecEnv, steps: int) -> None:
    """Step an environment with random actions."""
    random = np.random.default_rng(0)
    env.reset()
    for _ in range(steps):
        env.step(random.uniform(-1, 1, (NUM_ENVS, 64)).astype(np.float32))


def measure(access: str, queries: int, slow_queries: int, repeats: int) -> dict[str, float]:
    """The three ratios."""
    generator, scorer = build(access)

    def core() -> LatentCore:
        return LatentCore(generator, scorer)

    steps = max(1, slow_queries // NUM_ENVS)
    sac = SB3Searcher(
        "SAC", num_envs=1, gradient_steps=1, net_arch=(256, 256), algorithm_kwargs={"learning_starts": 256}
    )
    actions: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(core(), queries),
        "ppo": lambda: SB3Searcher(num_envs=NUM_ENVS).search(core(), queries),
        "batched": lambda: roll(LatentVecEnv(core(), NUM_ENVS), steps),
        "dummy": lambda: roll(DummyVecEnv([lambda: LatentEnv(core())] * NUM_ENVS), steps),
        "sac": lambda: sac.search(core(), slow_queries),
    }
    bare(core(), NUM_ENVS * 4)  # warm up
    times = {name: [seconds(action)] for name, action in actions.items()}
    for _ in range(repeats - 1):
        for name, action in actions.items():
            times[name].append(seconds(action))
    middle = {name: statistics.median(values) for name, values in times.items()}
    return {
        "search_over_bare_scoring": middle["bare"] / middle["ppo"],
        "over_dummy_vec_env": middle["dummy"] / middle["batched"],
        "over_single_candidate_sac": (queries / middle["ppo"]) / (slow_queries / middle["sac"]),
        "ppo_queries_per_second": queries / middle["ppo"],
        "bare_queries_per_second": queries / middle["bare"],
    }


def main() -> None:
    """Run the benchmark and print its ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4,096 queries once instead of 20,480 three times")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the ratios to this file")
    parser.add_argument("--access", choices=("black", "gray", "white"), default="black")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    queries, slow_queries, repeats = (4096, 512, 1) if arguments.quick else (20480, 2048, 3)
    result: dict[str, object] = dict(measure(arguments.access, queries, slow_queries, repeats))
    for name, value in result.items():
        print(f"{name}: {value:.2f}")
    if arguments.json:
        result |= {
            "access": arguments.access,
            "queries": queries,
            "slow_queries": slow_queries,
            "repeats": repeats,
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
