"""Cross-entropy method in latent space."""

from __future__ import annotations

from typing import ClassVar

import torch

from retrace_pl.envs import LatentCore, random_stream
from retrace_pl.errors import InputError
from retrace_pl.searchers.base import Searcher, SearchObserver

__all__ = ["CEMSearcher"]


class CEMSearcher(Searcher):
    """Cross-entropy method: a diagonal Gaussian, starting at the prior, is refitted to the best of each generation.

    Args:
        population: Candidates per generation; the last generation is smaller if the budget asks for it.
        elite_fraction: Share of a generation that the Gaussian is refitted to, in (0, 1).
        smoothing: Weight of the new mean and standard deviation against the old ones, in (0, 1].
        min_std: Lower bound of the standard deviations: keeps the search from ending in a point.

    Example:
        >>> from retrace_pl.envs.toys import toy_core
        >>> pool = CEMSearcher(population=100).search(toy_core(), budget=1000)
        >>> bool(pool.scores[-100:].mean() > pool.scores[:100].mean())
        True
    """

    name: ClassVar[str] = "cem"

    def __init__(
        self, population: int = 512, elite_fraction: float = 0.1, smoothing: float = 0.7, min_std: float = 0.1
    ) -> None:
        if population < 2:
            raise InputError(f"searcher.population must be at least 2, got {population}")
        if not 0 < elite_fraction < 1:
            raise InputError(f"searcher.elite_fraction must lie in (0, 1), got {elite_fraction}")
        if not 0 < smoothing <= 1:
            raise InputError(f"searcher.smoothing must lie in (0, 1], got {smoothing}")
        if min_std < 0:
            raise InputError(f"searcher.min_std must not be negative, got {min_std}")
        self.population = population
        self.elite_fraction = elite_fraction
        self.smoothing = smoothing
        self.min_std = min_std

    def _search(self, core: LatentCore, budget: int, seed: int, observer: SearchObserver) -> None:
        random = random_stream(seed, "cem")
        mean = torch.zeros(core.latent_dim)
        std = torch.ones(core.latent_dim)
        while core.queries < budget:
            n = min(self.population, budget - core.queries)
            raw = mean + std * torch.randn(n, core.latent_dim, generator=random)
            scores = core.evaluate(core.settings.project(raw)).cpu()
            # Equal scores (thousands saturate at 1) are ranked at random: `raw` is in random order already.
            elite = raw[scores.argsort(descending=True, stable=True)[: max(2, int(n * self.elite_fraction))]]
            mean = (1 - self.smoothing) * mean + self.smoothing * elite.mean(0)
            std = ((1 - self.smoothing) * std + self.smoothing * elite.std(0)).clamp_min(self.min_std)
            scalars = core.scalars() | {"cem/std": float(std.mean()), "cem/mean_norm": float(mean.norm())}
            observer.on_update(core.queries, core.pool, scalars)
