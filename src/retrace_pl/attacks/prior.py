"""The prior-only control: what the generator yields without asking any model."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from retrace_pl.attacks.base import Reconstruction
from retrace_pl.attacks.selection import assemble, select_distribution
from retrace_pl.envs import LatentCore, LatentSettings

__all__ = ["prior_only"]


def _no_score(inputs: Tensor) -> SimpleNamespace:
    return SimpleNamespace(score=torch.zeros(len(inputs), device=inputs.device))


def prior_only(
    generator: nn.Module, k: int = 64, budget: int = 20480, seed: int = 0, latent: LatentSettings | None = None
) -> Reconstruction:
    """As many candidates as an attack may query, drawn from the prior, and selected without any model.

    There is no score to choose by, so all candidates tie: ``k`` of them are taken at random, and the instance is the
    most typical of a random thousand, as for an attack whose best candidates tie.

    Args:
        generator: Frozen generator with ``latent_dim``.
        k: Size of the distribution-level reconstruction.
        budget: Candidates to draw; none of them is shown to a model.
        seed: Seed of the draws and of the choice.
        latent: Only the projection is used, as in the attack it stands beside.

    Returns:
        A reconstruction whose scores are 0, with 0 queries and an empty curve.
    """
    core = LatentCore(generator, _no_score, latent, seed)
    core.restart(budget, seed)
    latents = core.settings.project(core.prior(budget))
    core.pool.add(latents, torch.zeros(budget))
    return assemble(core, select_distribution(core, k, "top", seed), seed)
