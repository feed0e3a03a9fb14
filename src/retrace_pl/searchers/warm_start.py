"""A policy that starts where the prior's best samples are, instead of anywhere."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from retrace_pl.envs import LatentCore, random_stream
from retrace_pl.errors import InputError

__all__ = ["start_from_elites"]

_STEPS = 300
_BATCH = 256
_LEARNING_RATE = 3e-3


def start_from_elites(core: LatentCore, policy: Any, queries: int, seed: int, *, elite_fraction: float = 0.05) -> None:
    """Query the prior, keep the best, and teach the policy to move every latent to the nearest of them.

    A policy that ignores its state has one mean; this one has as many as there are elites, a different one for every
    part of the prior, so that what it finds stays as varied as the elites are. The value function is left alone.

    Args:
        core: The search problem; the queries are counted there and the candidates kept.
        policy: Stable-Baselines3 on-policy actor-critic with a Gaussian over actions; changed in place.
        queries: Samples of the prior to query.
        seed: Seed of the imitation's latents; the queried ones come from the core's own stream.
        elite_fraction: Share of the queried samples that the policy imitates, in (0, 1].

    Raises:
        InputError: There are no queries, or the fraction is out of range.
        RunError: The queries exceed the budget.
    """
    if queries < 1 or not 0 < elite_fraction <= 1:
        raise InputError("searcher.warm_start: give at least one query and an elite fraction in (0, 1]")
    first = len(core.pool)
    for start in range(0, queries, core.batch_size):
        core.evaluate(core.settings.project(core.prior(min(core.batch_size, queries - start))))
    scores = core.pool.scores[first:]
    best = scores.topk(max(1, int(elite_fraction * queries))).indices
    elites = core.pool.latents[first:][best].clone()
    random = random_stream(seed, "warm start")
    actor = [value for name, value in policy.named_parameters() if "value" not in name and name != "log_std"]
    optimizer = torch.optim.Adam(actor, lr=_LEARNING_RATE)
    for _ in range(_STEPS):
        latents = torch.randn(_BATCH, core.latent_dim, generator=random)
        nearest = elites[(latents @ elites.T).argmax(dim=1)]  # by angle: elites have nearly the same length
        offset, gain = core.settings.affine(latents)
        target = ((nearest - offset) / gain).clamp(-1, 1).to(policy.device)
        action = policy.get_distribution(latents.to(policy.device)).distribution.mean
        loss = functional.mse_loss(action, target)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
