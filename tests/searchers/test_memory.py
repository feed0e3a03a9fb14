"""The memory of a search: its pool of latents and scores, and nothing else that grows with the budget."""

import gc
import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from retrace_pl.attacks import AttackContext, ReTrace
from retrace_pl.envs import LatentSettings
from retrace_pl.envs.toys import IdentityGenerator, TargetScorer
from retrace_pl.searchers import NullObserver, RandomSearcher, SB3Searcher

STATM = Path("/proc/self/statm")
PAGE = os.sysconf("SC_PAGE_SIZE")
LATENT = 64
pytestmark = pytest.mark.skipif(not STATM.exists(), reason="the kernel shows no resident memory here")


def resident():
    """Megabytes of this process that are in memory now."""
    return int(STATM.read_text().split()[1]) * PAGE / 1e6


class Highest(NullObserver):
    def __init__(self):
        self.megabytes = 0.0

    def on_update(self, queries, pool, scalars):
        self.megabytes = max(self.megabytes, resident())


def growth(searcher, budget):
    """What an attack adds to the resident memory, at the highest point that its observer sees or at its end."""
    scorer, highest = TargetScorer(torch.ones(LATENT)), Highest()
    context = AttackContext(None, scorer, IdentityGenerator(LATENT), LatentSettings(), budget=budget, observer=highest)
    gc.collect()
    before = resident()
    found = ReTrace(searcher).reconstruct(context)
    assert found.queries == len(found.pool) == budget
    return max(highest.megabytes, resident()) - before


def measure(searcher, queue):
    """Run in a process of its own: memory that earlier tests gave back would hide the growth."""
    torch.set_num_threads(1)
    growth(searcher, 8192)  # what every search needs once
    queue.put(growth(searcher, 200_000))


@pytest.mark.parametrize(
    "searcher",
    [RandomSearcher(batch_size=2048), SB3Searcher(num_envs=4096, n_steps=1, n_epochs=1, batch_size=4096)],
    ids=["random", "ppo"],
)
def test_200000_queries_take_little_more_than_their_latents_and_scores(searcher):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measure, args=(searcher, queue))
    process.start()
    grown = queue.get(timeout=240)
    process.join()
    pool = 200_000 * (LATENT + 1) * 4 / 1e6  # 52 MB
    assert 0.8 * pool < grown < pool + 40
