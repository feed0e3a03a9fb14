"""Random search: the baseline that every other searcher has to beat at the same number of queries."""

from __future__ import annotations

from typing import ClassVar

from retrace_pl.envs import LatentCore
from retrace_pl.errors import InputError
from retrace_pl.searchers.base import Searcher, SearchObserver

__all__ = ["RandomSearcher"]


class RandomSearcher(Searcher):
    """Independent draws from the latent prior (best of N).

    The draws pass through the same projection as those of the other searchers.

    Args:
        batch_size: Candidates per evaluation.

    Example:
        >>> from retrace_pl.envs.toys import toy_core
        >>> pool = RandomSearcher().search(toy_core(), budget=1000)
        >>> len(pool), pool.best > 0.5
        (1000, True)
    """

    name: ClassVar[str] = "random"

    def __init__(self, batch_size: int = 512) -> None:
        if batch_size < 1:
            raise InputError(f"searcher.batch_size must be at least 1, got {batch_size}")
        self.batch_size = batch_size

    def _search(self, core: LatentCore, budget: int, seed: int, observer: SearchObserver) -> None:
        while core.queries < budget:
            latents = core.prior(min(self.batch_size, budget - core.queries))
            core.evaluate(core.settings.project(latents))
            observer.on_update(core.queries, core.pool, core.scalars())
