"""What the search costs beside the models it asks: ``python benchmarks/speed.py [--quick] [--json FILE]``.

Every ratio comes from timings of one run on one machine, in turns (medians of the repeats), in processor time of one
thread, so that other jobs on the machine do not count. Sizes are those of the audits in ``configs/audit/``: digits,
Fashion-MNIST with ResNet-8, and ResNet-18 at 32x32 with 100 classes and a DCGAN.

- ``loop``: candidates per second of the PPO search over those of only generating and scoring candidates in the same
  batches, nothing kept (with input gradients for white-box access). 1 means that learning costs nothing.
- ``memory_format``: ``channels_last`` over ``contiguous``, in candidates per second of the whole search.
- ``ways``: candidates per second of bare scoring (black-box) with each way to run the models over running them as they
  are, and ``torch.func``: both models' forward passes as one over stacked weights, over one after the other.
- ``dummy_vec_env``: candidates per second of the batched environment over those of as many single environments in a
  DummyVecEnv, same actions.
- ``same_score``: time that SAC needs with one candidate per step and one update per query, as in RLB-MI (CVPR 2023),
  over the time in which PPO reaches the score (mean of the best 64) that SAC ends with; trained models of the digits
  setting, one row per seed. ``per_query`` is the ratio of queries per second.
- ``memory``: how much a search of a million queries adds to the process's peak memory.
- ``profile``: where the time of a search goes.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from _digits_setting import build as digits
from _speed_setting import SIZES, bare, build, medians, profile, seconds, together
from retrace_pl.attacks import AttackContext, ReTrace
from retrace_pl.envs import CandidatePool, LatentCore, LatentEnv
from retrace_pl.envs.sb3 import LatentVecEnv
from retrace_pl.models import DCGAN, SmallCNN
from retrace_pl.searchers import NullObserver, SB3Searcher
from retrace_pl.traces import ModelPair, TraceScorer

NUM_ENVS = 128
QUERIES = {"digits": 10240, "fashion_mnist": 4096, "resnet18": 512}
WAY_QUERIES = {"digits": 2048, "fashion_mnist": 512, "resnet18": 32}
SINGLE_STEPS = {"digits": 4, "fashion_mnist": 2, "resnet18": 1}
MILLION = 1_000_000


def loop(size: str, access: str, queries: int, repeats: int) -> dict[str, float]:
    """PPO search against bare scoring, and the two memory formats against each other."""
    plain, packed = build(size, access), build(size, access, "channels_last")

    def search(models: Any) -> Callable[[], object]:
        return lambda: SB3Searcher(num_envs=NUM_ENVS).search(LatentCore(*models), queries)

    actions = {
        "bare": lambda: bare(*plain, queries, NUM_ENVS),
        "search": search(plain),
        "packed_bare": lambda: bare(*packed, queries, NUM_ENVS),
        "packed_search": search(packed),
    }
    for models in (plain, packed):
        bare(*models, 64, 64)  # warm up
    times = medians(actions, repeats)
    return {
        "loop": times["bare"] / times["search"],
        "loop_channels_last": times["packed_bare"] / times["packed_search"],
        "memory_format": times["search"] / times["packed_search"],
        "queries_per_second": queries / times["search"],
        "queries_per_second_channels_last": queries / times["packed_search"],
        "queries": queries,
    }


WAYS = {
    "channels_last": ("channels_last", "none", False),
    "bfloat16": ("contiguous", "bfloat16", False),
    "bfloat16, channels_last": ("channels_last", "bfloat16", False),
    "torch.compile": ("contiguous", "none", True),
}
"""Name -> memory format, autocast and compile."""


def ways(size: str, queries: int, repeats: int, names: Iterable[str] = WAYS) -> dict[str, float]:
    """What each way to run the models gains, and what one pass for both models would."""
    built = {name: build(size, "black", *WAYS[name]) for name in names} | {"plain": build(size, "black")}
    actions = {name: partial(bare, *models, queries, min(queries, NUM_ENVS)) for name, models in built.items()}
    separate, joint = together(size)
    with torch.no_grad():
        images = built["plain"][0](torch.randn(min(queries, NUM_ENVS), int(built["plain"][0].latent_dim)))
        actions |= {"separate": lambda: separate(images), "joint": lambda: joint(images)}
        for action in actions.values():
            action()  # compile and warm up
        times = medians(actions, repeats)
    found = {name: times["plain"] / times[name] for name in built if name != "plain"}
    return found | {"torch.func": times["separate"] / times["joint"]}


def roll(env: VecEnv, steps: int) -> None:
    """Step an environment with random actions."""
    random = np.random.default_rng(0)
    env.reset()
    for _ in range(steps):
        env.step(random.uniform(-1, 1, (env.num_envs, *env.action_space.shape)).astype(np.float32))


def dummy(size: str, access: str, steps: int, repeats: int, num_envs: int = NUM_ENVS) -> float:
    """The batched environment against single ones."""
    models = build(size, access, "channels_last")
    actions = {
        "batched": lambda: roll(LatentVecEnv(LatentCore(*models), num_envs), steps),
        "single": lambda: roll(DummyVecEnv([lambda: LatentEnv(LatentCore(*models))] * num_envs), steps),
    }
    roll(LatentVecEnv(LatentCore(*models), 8), 1)  # warm up
    times = medians(actions, repeats)
    return times["single"] / times["batched"]


class _Reached(Exception):
    """The search has the score that was asked for."""


class _Until(NullObserver):
    def __init__(self, score: float) -> None:
        self.score = score
        self.queries = 0

    def on_update(self, queries: int, pool: CandidatePool, scalars: dict[str, float]) -> None:
        """Stop at the score."""
        self.queries = queries
        if pool.top_mean() >= self.score:
            raise _Reached


def same_score(seed: int, cache: Path, queries: int) -> dict[str, float]:
    """One-candidate SAC against PPO in time to the score that SAC reaches."""
    setting = digits(seed, cache)
    scorer = setting.scorer("black")
    sac = SB3Searcher(
        "SAC",
        num_envs=1,
        gradient_steps=1,
        learning_rate=5e-4,
        net_arch=(256, 256),
        batch_size=256,
        algorithm_kwargs={"tau": 0.01, "learning_starts": 256, "buffer_size": 1_000_000},
    )
    slow = LatentCore(setting.generator, scorer)
    slow_seconds = seconds(lambda: sac.search(slow, queries, seed))
    until = _Until(slow.pool.top_mean())
    start = time.process_time()
    try:
        SB3Searcher(num_envs=NUM_ENVS).search(LatentCore(setting.generator, scorer), 10 * queries, seed, until)
    except _Reached:
        pass
    else:
        raise SystemExit(f"seed {seed}: PPO did not reach {until.score:.4f} within {10 * queries} queries")
    fast_seconds = time.process_time() - start
    return {
        "seed": seed,
        "score": until.score,
        "sac_queries": queries,
        "sac_seconds": slow_seconds,
        "ppo_queries": until.queries,
        "ppo_seconds": fast_seconds,
        "same_score": slow_seconds / fast_seconds,
        "per_query": (slow_seconds / queries) / (fast_seconds / until.queries),
    }


def grow(queries: int) -> float:
    """Megabytes that an attack with this many queries adds to the peak memory of this process."""
    torch.manual_seed(0)
    generator = DCGAN((1, 8, 8), latent_dim=64, width=4).eval().requires_grad_(False)
    scorer = TraceScorer(ModelPair(SmallCNN(1, 10, width=2), SmallCNN(1, 10, width=2)))
    scorer.fit(generator(torch.randn(256, 64)))

    def attack(budget: int) -> None:
        searcher = SB3Searcher(num_envs=2048, n_steps=1, n_epochs=1, batch_size=2048)
        ReTrace(searcher, top_k=64).reconstruct(AttackContext(None, scorer, generator, budget=budget))

    attack(8192)  # what every search needs once
    before = resident()
    attack(queries)
    return peak() - before


def peak() -> float:
    """Peak resident memory of this process, in megabytes."""
    file = Path("/proc/self/status")
    if file.exists():  # getrusage would count what the parent held when this process was started
        found = re.search(r"VmHWM:\s+(\d+) kB", file.read_text(encoding="utf-8"))
        assert found is not None
        return int(found.group(1)) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def resident() -> float:
    """Resident memory of this process now, in megabytes; its peak where the kernel does not say."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * resource.getpagesize() / 1e6 if file.exists() else peak()


def memory(queries: int) -> float:
    """:func:`grow` in a process of its own."""
    command = [sys.executable, __file__, "--grow", str(queries)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def tables(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| size | access | loop | loop, channels_last | channels_last over contiguous | queries/s |",
        "|---" * 6 + "|",
    ]
    for row in result["loop"]:
        ratios = " | ".join(f"{row[name]:.2f}" for name in ("loop", "loop_channels_last", "memory_format"))
        lines.append(
            f"| {row['size']} | {row['access']} | {ratios} | {row['queries_per_second']:.0f} / "
            f"{row['queries_per_second_channels_last']:.0f} |"
        )
    columns = list(dict.fromkeys(name for row in result["ways"] for name in row if name != "size"))
    lines += ["", f"| size | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in result["ways"]:
        shown = (f"{row[name]:.2f}" if name in row else "-" for name in columns)
        lines.append(f"| {row['size']} | {' | '.join(shown)} |")
    lines += ["", "| size | access | over DummyVecEnv |", "|---|---|---|"]
    lines += [f"| {row['size']} | {row['access']} | {row['dummy_vec_env']:.1f} |" for row in result["dummy_vec_env"]]
    names = ("seed", "score", "sac_queries", "sac_seconds", "ppo_queries", "ppo_seconds", "same_score", "per_query")
    lines += ["", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join(f'{row[name]:.4g}' for name in names)} |" for row in result["same_score"]]
    lines += ["", f"memory of {result['memory']['queries']} queries: {result['memory']['megabytes']:.0f} MB", ""]
    columns = list(result["profile"])
    parts = dict.fromkeys(part for column in columns for part in result["profile"][column])
    lines += [f"| part of the search | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for part in parts:
        shares = (result["profile"][column].get(part) for column in columns)
        lines.append(f"| {part} | {' | '.join('-' if s is None else f'{100 * s:.1f} %' for s in shares)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits only, once, with few queries: half a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the ratios to this file")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the time to the same score")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where trained models are kept")
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.grow:
        print(grow(arguments.grow))
        return
    quick = arguments.quick
    sizes, repeats = (["digits"], 1) if quick else (arguments.sizes, arguments.repeats)
    cells = [(size, access) for size in sizes for access in ("black", "white")]
    result: dict[str, Any] = {"loop": [], "ways": [], "dummy_vec_env": [], "profile": {}}
    for size in sizes:
        found = ways(size, 256 if quick else WAY_QUERIES[size], repeats, [*WAYS][:1] if quick else WAYS)
        result["ways"].append({"size": size, **found})
        print(json.dumps(result["ways"][-1]), flush=True)
    for size, access in cells:
        queries = 1024 if quick else QUERIES[size]
        result["loop"].append({"size": size, "access": access, **loop(size, access, queries, repeats)})
        steps = 1 if quick else SINGLE_STEPS[size]
        ratio = dummy(size, access, steps, repeats)
        result["dummy_vec_env"].append({"size": size, "access": access, "dummy_vec_env": ratio})
        result["profile"][f"{size}, {access}"] = profile(*build(size, access, "channels_last"), queries, NUM_ENVS)
        print(json.dumps([result["loop"][-1], result["dummy_vec_env"][-1]]), flush=True)
    queries = 1024 if quick else 2048
    result["same_score"] = [
        same_score(seed, arguments.cache, queries) for seed in range(1 if quick else arguments.seeds)
    ]
    queries = 100_000 if quick else MILLION
    result["memory"] = {"queries": queries, "megabytes": memory(queries)}
    print(tables(result))
    if arguments.json:
        versions = {"processor": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
        result |= {"threads": torch.get_num_threads(), "repeats": repeats, "num_envs": NUM_ENVS, "machine": versions}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
