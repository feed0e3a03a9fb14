"""What the training of a policy is doing, as named numbers for the log."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from retrace_pl.envs import LatentCore

__all__ = ["kl_to_prior", "training_scalars"]


def training_scalars(model: Any) -> dict[str, float]:
    """SB3's numbers of the last update (``train/approx_kl``, ``train/clip_fraction``, ``train/value_loss``, ...)."""
    values = model.logger.name_to_value
    return {name: float(value) for name, value in values.items() if name.startswith("train/")}


def kl_to_prior(model: Any, core: LatentCore, limit: int = 256) -> float | None:
    """KL divergence from the policy's latents, before projection, to ``N(0, I)``, averaged over current latents.

    Closed form for Gaussian policies (clipping of actions is ignored), a sample estimate for squashed ones, ``None``
    for deterministic ones.

    Args:
        model: A Stable-Baselines3 algorithm that moves in ``core``.
        core: The search problem.
        limit: How many of the current latents are looked at.
    """
    current = core.current[:limit]
    offset, gain = core.settings.affine(current)
    policy = model.policy
    with torch.no_grad():
        observation = policy.obs_to_tensor(current.cpu().numpy())[0]
        if hasattr(policy, "get_distribution"):
            normal = getattr(policy.get_distribution(observation), "distribution", None)
            if not isinstance(normal, Normal) or policy.squash_output:
                return None
            mean, std = offset + gain * normal.mean.to(offset.device), gain * normal.stddev.to(offset.device)
            return float(0.5 * (std.square() + mean.square() - 1 - 2 * std.log()).sum(1).mean())
        if hasattr(policy, "actor") and hasattr(policy.actor, "action_log_prob"):
            action, log_probability = policy.actor.action_log_prob(observation)
            density = log_probability.flatten() - core.latent_dim * math.log(gain)
            return float((density - _log_normal(offset, gain, action)).mean())
    return None


def _log_normal(offset: Tensor, gain: float, action: Tensor) -> Tensor:
    raw = offset.to(action.device) + gain * action
    return -0.5 * (raw.square().sum(1) + raw.shape[1] * math.log(2 * math.pi))
