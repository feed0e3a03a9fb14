"""Covariance matrix adaptation (CMA-ES) in latent space."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from cmaes import CMA, SepCMA

from retrace_pl.envs import LatentCore, random_stream
from retrace_pl.errors import InputError
from retrace_pl.searchers.base import Searcher, SearchObserver

__all__ = ["CMAESSearcher", "Covariance"]

Covariance = Literal["auto", "full", "diagonal"]


class CMAESSearcher(Searcher):
    """CMA-ES: a Gaussian, starting at the prior, whose mean, step size and covariance follow the better half.

    Source: Hansen, "The CMA evolution strategy: a tutorial" (2016), and Ros and Hansen (PPSN 2008) for the diagonal
    form, as the library ``cmaes`` implements them. The Gaussian is told where its draws ended up after the core's
    projection: left alone on the sphere, where the length of a draw has no effect, its mean grows without bound and
    the steps lose their meaning. A run that has converged or diverged by the library's criteria is followed by a
    fresh one from the prior, until the budget is used. A last generation that the budget cuts short is evaluated, not
    learned from.

    Args:
        population: Candidates per generation; ``None`` takes ``4 + 3 ln d`` for ``d`` latent coordinates, the
            tutorial's default (eq. 48), which makes many small generations.
        initial_std: Standard deviation of the first generation; 1 is the prior.
        covariance: ``full`` learns ``d^2`` numbers, ``diagonal`` (SepCMA) ``d`` of them; ``auto`` is full up to
            ``full_up_to`` coordinates. The full form costs a ``d x d`` eigendecomposition per generation.
        full_up_to: Largest latent that ``auto`` gives a full covariance.
    """

    name: ClassVar[str] = "cma_es"

    def __init__(
        self,
        population: int | None = 128,
        initial_std: float = 1.0,
        covariance: Covariance = "auto",
        full_up_to: int = 256,
    ) -> None:
        if population is not None and population < 4:
            raise InputError(f"searcher.population must be at least 4, got {population}")
        if initial_std <= 0:
            raise InputError(f"searcher.initial_std must be positive, got {initial_std}")
        if covariance not in get_args(Covariance):
            raise InputError(
                f"searcher.covariance must be one of {', '.join(get_args(Covariance))}, got {covariance!r}"
            )
        self.population = population
        self.initial_std = initial_std
        self.covariance: Covariance = covariance
        self.full_up_to = full_up_to

    def is_full(self, latent_dim: int) -> bool:
        """Whether latents of this length get a full covariance."""
        return self.covariance == "full" or (self.covariance == "auto" and latent_dim <= self.full_up_to)

    def _search(self, core: LatentCore, budget: int, seed: int, observer: SearchObserver) -> None:
        random = random_stream(seed, "cma_es")
        strategy = self._strategy(core.latent_dim, random)
        restarts = 0
        while core.queries < budget:
            n = min(strategy.population_size, budget - core.queries)
            raw = torch.as_tensor(np.stack([strategy.ask() for _ in range(n)]), dtype=torch.float32)
            latents = core.settings.project(raw)
            scores = core.evaluate(latents).cpu()
            if n == strategy.population_size:
                # The library minimises, and sorts stably: equal scores keep the random order of the draws.
                strategy.tell(
                    [(point, -float(score)) for point, score in zip(latents.double().numpy(), scores, strict=True)]
                )
            scalars = {
                "cma_es/std": float(raw.std(0, correction=0).mean()),
                "cma_es/mean_norm": float(np.linalg.norm(strategy.mean)),
                "cma_es/restarts": float(restarts),
            }
            observer.on_update(core.queries, core.pool, core.scalars() | scalars)
            if strategy.should_stop():
                strategy = self._strategy(core.latent_dim, random)
                restarts += 1

    def _strategy(self, latent_dim: int, random: torch.Generator) -> CMA | SepCMA:
        seed = int(torch.randint(2**32, (1,), generator=random))
        full = self.is_full(latent_dim)
        kind = CMA if full else SepCMA
        strategy = kind(np.zeros(latent_dim), self.initial_std, seed=seed, population_size=self.population)
        if not full and diagonal_rate(latent_dim, strategy.population_size) >= 1:
            raise InputError(
                f"searcher.population: {strategy.population_size} is too large for a diagonal covariance of"
                f" {latent_dim} coordinates; lower it or set searcher.covariance to full"
            )
        return strategy


def diagonal_rate(latent_dim: int, population: int) -> float:
    """How much of the diagonal covariance a generation replaces; from 1 on, variances could turn negative.

    Sum of the rank-one and rank-mu learning rates of Ros and Hansen (PPSN 2008), for ``mu = population / 2`` parents
    with logarithmic weights.
    """
    parents = population // 2
    weights = np.log(parents + 1) - np.log(np.arange(1, parents + 1))
    effective = float(weights.sum() ** 2 / np.square(weights).sum())
    rank_one = 2 / ((latent_dim + 1.3) ** 2 + effective)
    full = 2 / effective / (latent_dim + math.sqrt(2)) ** 2
    full += (1 - 1 / effective) * min(1.0, (2 * effective - 1) / ((latent_dim + 2) ** 2 + effective))
    return rank_one + full * (latent_dim + 2) / 3
