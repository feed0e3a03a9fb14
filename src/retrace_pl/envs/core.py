"""The search problem itself, batched and in plain torch; the environment faces only convert arrays.

Source: ReTrace (ICLR 2026), "policy optimisation": a one-step contextual bandit with state ``z0 ~ N(0, I)``, action
``z1`` and reward ``s(G(z1))``. Horizon, mixing and residual actions follow RLB-MI (CVPR 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from retrace_pl.envs.pool import CandidatePool
from retrace_pl.errors import InputError, RunError
from retrace_pl.models import Generator

__all__ = ["LatentCore", "LatentSettings", "LatentStep", "random_stream"]

CURVE_POINTS = 100


def random_stream(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own for every purpose, so that two users of one seed never draw the same numbers."""
    state = np.random.SeedSequence([seed, crc32(purpose.encode())]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


@dataclass(frozen=True)
class LatentSettings:
    """How an action becomes a latent, and what it is rewarded for.

    Args:
        tau: Weight of the prior term. The reward of a candidate is ``score - (tau / 2) * |a|^2``, where ``a`` is the
            latent that the policy asked for, before any projection (the same as the latent without one). With an
            entropy bonus ``tau`` its expectation is ``E[score] - tau * KL(policy || N(0, I))`` up to a constant,
            whose maximum is the KL-regularised optimum ``p0(z) exp(s / tau)``; a large ``tau`` returns the prior. No
            division by the latent size: a typical prior latent costs ``tau * d / 2``.
        horizon: Steps of an episode. 1 is the contextual bandit.
        rho: With a horizon above 1, how much of the current latent stays: ``z' = rho * z + (1 - rho) * a``.
        residual: Add the action to the current latent instead of replacing it.
        projection: ``sphere`` moves every latent to the prior's typical sphere, ``z = sqrt(d) * a / |a|``, which
            keeps the search where the generator was trained; ``none`` leaves it.
        action_scale: Actions in [-1, 1] are multiplied by this.
    """

    tau: float = 0.002
    horizon: int = 1
    rho: float = 0.5
    residual: bool = False
    projection: Literal["none", "sphere"] = "sphere"
    action_scale: float = 3.0

    def __post_init__(self) -> None:
        if self.tau < 0:
            raise InputError(f"latent.tau must not be negative, got {self.tau}")
        if self.horizon < 1:
            raise InputError(f"latent.horizon must be at least 1, got {self.horizon}")
        if not 0 <= self.rho < 1:
            raise InputError(f"latent.rho must lie in [0, 1), got {self.rho}")
        if self.projection not in ("none", "sphere"):
            raise InputError(f"latent.projection must be none or sphere, got {self.projection!r}")
        if self.action_scale <= 0:
            raise InputError(f"latent.action_scale must be positive, got {self.action_scale}")

    def bound(self, latent_dim: int) -> float:
        """Largest absolute latent coordinate: 10 standard deviations of the prior, or the sphere's radius."""
        return max(10.0, math.sqrt(latent_dim))

    def project(self, raw: Tensor) -> Tensor:
        """Latents ``[n, d]`` that the generator is shown for the latents ``[n, d]`` that were asked for."""
        d = raw.shape[1]
        if self.projection == "sphere":
            raw = raw * (math.sqrt(d) / raw.norm(dim=1, keepdim=True).clamp_min(1e-12))
        return raw.clamp(-self.bound(d), self.bound(d))

    def affine(self, current: Tensor) -> tuple[Tensor, float]:
        """Offset ``[n, d]`` and gain of the latents asked for: ``offset + gain * action``.

        Args:
            current: Latents ``[n, d]`` before the step.
        """
        offset = current if self.residual else torch.zeros_like(current)
        if self.horizon > 1:
            return self.rho * current + (1 - self.rho) * offset, (1 - self.rho) * self.action_scale
        return offset, self.action_scale

    def move(self, current: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The transition, without any reward.

        Args:
            current: Latents ``[n, d]`` before the step.
            action: ``[n, d]`` in [-1, 1].

        Returns:
            The latents asked for and the projected latents, both ``[n, d]``.
        """
        offset, gain = self.affine(current)
        raw = offset + gain * action
        return raw, self.project(raw)


class LatentStep(NamedTuple):
    """What one step of the environment gives back: everything ``[n]`` or ``[n, d]``, on the core's device."""

    latents: Tensor
    reward: Tensor
    score: Tensor
    done: bool


class LatentCore:
    """Batched latent-space search problem: holds the generator and the scorer, counts queries, keeps every candidate.

    A query is one candidate evaluated by both models of the pair. All candidates of a batch are at the same step of
    their episodes, so they end together.

    Args:
        generator: Frozen generator with ``latent_dim``; used in evaluation mode, without gradients.
        scorer: Maps inputs ``[n, ...]`` to an object whose ``score`` is ``[n]`` in [0, 1] (a ``TraceScorer``).
        settings: How actions become latents and rewards.
        seed: Seed of the initial latents.
        budget: Largest number of queries; ``None`` sets no limit.
        batch_size: Candidates that are generated and scored at a time.
        probe: Optional look at inputs ``[n, ...]`` that returns named numbers for the log; it neither counts as a
            query nor influences the search.

    Example:
        >>> from retrace_pl.envs.toys import toy_core
        >>> toy = toy_core()
        >>> core = LatentCore(toy.generator, toy.scorer, LatentSettings(tau=0.1), budget=100)
        >>> start = core.reset(n=10)
        >>> step = core.step(torch.zeros_like(start))
        >>> step.reward.shape, step.done, core.queries, core.remaining, len(core.pool)
        (torch.Size([10]), True, 10, 90, 10)
    """

    def __init__(
        self,
        generator: nn.Module,
        scorer: Callable[[Tensor], Any],
        settings: LatentSettings | None = None,
        seed: int = 0,
        *,
        budget: int | None = None,
        batch_size: int = 512,
        probe: Callable[[Tensor], dict[str, float]] | None = None,
    ) -> None:
        latent_dim = getattr(generator, "latent_dim", None)
        if not isinstance(latent_dim, int) or latent_dim < 1:
            raise InputError(f"{type(generator).__name__} cannot be searched: it has no positive latent_dim")
        self.generator = generator.eval()
        self.scorer = scorer
        self.settings = settings if settings is not None else LatentSettings()
        self.latent_dim = latent_dim
        self.batch_size = batch_size
        self.probe = probe
        tensors = [*generator.parameters(), *generator.buffers()]
        self.device = tensors[0].device if tensors else torch.device("cpu")
        self.restart(budget, seed)

    def restart(self, budget: int | None, seed: int) -> None:
        """Forget all candidates and start counting again.

        Args:
            budget: Largest number of queries from here on; ``None`` sets no limit.
            seed: Seed of the initial latents.
        """
        if budget is not None and budget < 1:
            raise InputError(f"the query budget must be at least 1, got {budget}")
        self.budget = budget
        self.queries = 0
        self.pool = CandidatePool(self.latent_dim, capacity=budget)
        self.curve: list[tuple[int, float, float]] = []
        self.last_latents = torch.empty(0, self.latent_dim)
        self.seed(seed)

    def extend(self, budget: int) -> None:
        """Raise the query budget to ``budget`` in all; candidates and counts stay.

        Raises:
            InputError: More than ``budget`` queries were made already.
        """
        if budget < self.queries:
            raise InputError(f"{self.queries} queries were made already, more than the new budget of {budget}")
        self.budget = budget

    def seed(self, seed: int) -> None:
        """Seed the initial latents anew; candidates and counts stay."""
        self._random = random_stream(seed, "latents")
        self._current = torch.empty(0, self.latent_dim, device=self.device)
        self._time = 0

    @property
    def remaining(self) -> int | None:
        """Queries left, or ``None`` without a budget."""
        return None if self.budget is None else self.budget - self.queries

    @property
    def current(self) -> Tensor:
        """Latents ``[n, d]`` of the running episodes."""
        return self._current

    def prior(self, n: int) -> Tensor:
        """``n`` latents ``[n, d]`` from ``N(0, I)``, not projected, from the core's own random stream."""
        return torch.randn(n, self.latent_dim, generator=self._random).to(self.device)

    def reset(self, n: int) -> Tensor:
        """Start ``n`` episodes.

        Returns:
            Initial latents ``[n, d]`` from the prior, within :meth:`LatentSettings.bound`.
        """
        bound = self.settings.bound(self.latent_dim)
        self._current = self.prior(n).clamp(-bound, bound)
        self._time = 0
        return self._current

    def step(self, action: Tensor) -> LatentStep:
        """Move every candidate of the batch and score where it arrives.

        Args:
            action: ``[n, d]`` in [-1, 1]; values outside are clipped.

        Returns:
            New latents, rewards, scores, and whether the episodes are over.

        Raises:
            InputError: The shape of ``action`` is not that of the current latents.
            RunError: The step would exceed the query budget.
        """
        if action.shape != self._current.shape:
            raise InputError(f"actions must have the shape {tuple(self._current.shape)}, got {tuple(action.shape)}")
        action = action.detach().to(self.device, torch.float32).clamp(-1, 1)
        raw, latents = self.settings.move(self._current, action)
        score = self.evaluate(latents)
        reward = score - (self.settings.tau / 2) * raw.square().sum(1)
        self._current = latents
        self._time += 1
        return LatentStep(latents, reward, score, done=self._time >= self.settings.horizon)

    def evaluate(self, latents: Tensor) -> Tensor:
        """Score latents ``[n, d]`` as they are, count the queries and keep the candidates.

        Returns:
            Scores ``[n]`` in [0, 1] on the core's device.

        Raises:
            RunError: The batch would exceed the query budget.
        """
        n = len(latents)
        if self.budget is not None and self.queries + n > self.budget:
            raise RunError(f"query budget exceeded: {self.queries} of {self.budget} used and {n} more asked for")
        latents = latents.to(self.device)
        scores = [self.scorer(self.generate(part)).score.detach() for part in torch.split(latents, self.batch_size)]
        score = torch.cat(scores).to(self.device, torch.float32) if scores else torch.empty(0, device=self.device)
        self.queries += n
        self.pool.add(latents, score)
        self.last_latents = latents
        self._record()
        return score

    def _record(self) -> None:
        every = max(1, (self.budget if self.budget is not None else 100 * self.batch_size) // CURVE_POINTS)
        last = self.curve[-1][0] if self.curve else 0
        if self.queries - last >= every or self.queries == self.budget:
            self.curve.append((self.queries, self.pool.best, self.pool.top_mean()))

    def generate(self, latents: Tensor) -> Tensor:
        """Inputs ``[n, ...]`` for latents ``[n, d]``: not a query."""
        with torch.no_grad():
            parts = [self.generator(part) for part in torch.split(latents.to(self.device), self.batch_size)]
            return torch.cat(parts) if len(parts) != 1 else parts[0]

    def points(self, latents: Tensor) -> Tensor:
        """Vectors ``[n, f]`` whose distance says how much the inputs for latents ``[n, d]`` differ: not a query."""
        inputs = self.generate(latents)
        return self.generator.points(inputs) if isinstance(self.generator, Generator) else inputs.flatten(1)

    def scalars(self, limit: int = 64) -> dict[str, float]:
        """Numbers for the log: last batch's score and latent norm, the best scores so far, what the probe says."""
        values = {"score/best": self.pool.best, "score/top64": self.pool.top_mean()}
        n = len(self.last_latents)
        if n:
            values["score/batch"] = float(self.pool.scores[-n:].mean())
            values["latent/norm"] = float(self.last_latents.norm(dim=1).mean())
            if self.probe is not None:
                values.update(self.probe(self.generate(self.last_latents[:limit])))
        return values
