"""PPO's update written out for a diagonal Gaussian policy: the same numbers as the library's, at less cost.

A search makes thousands of updates of two small networks, which cost the bookkeeping of single operations rather than
arithmetic. Here the log-probability is closed-form, the statistics stay tensors until the end of an update, and the
rollout becomes tensors once instead of once per minibatch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["PPORules", "Rollout", "ppo_update"]

_LOG_TWO_PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class PPORules:
    """The settings of an update, as in Schulman et al., "Proximal policy optimization algorithms" (2017).

    Args:
        n_epochs: Passes over the rollout.
        batch_size: Minibatch size; the last minibatch of a pass may be smaller.
        clip_range: Largest change of the probability ratio that is rewarded.
        ent_coef: Weight of the entropy.
        vf_coef: Weight of the squared error of the value function.
        max_grad_norm: Gradients longer than this are scaled down to it.
        normalize_advantage: Standardise the advantages of each minibatch of at least two.
    """

    n_epochs: int
    batch_size: int
    clip_range: float
    ent_coef: float
    vf_coef: float
    max_grad_norm: float
    normalize_advantage: bool


@dataclass(frozen=True)
class Rollout:
    """What an update learns from, one row per transition.

    Args:
        observations: ``[n, d]``.
        actions: ``[n, a]``, as sampled, before any clipping.
        log_probs: Log-probability of the actions when they were sampled, ``[n]``.
        advantages: ``[n]``.
        returns: Targets of the value function, ``[n]``.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    returns: Tensor

    @classmethod
    def from_buffer(cls, buffer: Any, device: torch.device) -> Rollout:
        """Take over a Stable-Baselines3 rollout buffer, in the order in which the library numbers its transitions."""
        arrays: list[NDArray[np.float32]] = [
            getattr(buffer, name) for name in ("observations", "actions", "log_probs", "advantages", "returns")
        ]
        rows = [
            torch.as_tensor(array.swapaxes(0, 1).reshape(array.shape[0] * array.shape[1], -1), device=device)
            for array in arrays
        ]
        return cls(rows[0], rows[1], *(column.squeeze(1) for column in rows[2:]))

    def __len__(self) -> int:
        return len(self.observations)


def ppo_update(policy: Any, optimizer: torch.optim.Optimizer, rollout: Rollout, rules: PPORules) -> dict[str, float]:
    """Improve a policy on one rollout.

    Minibatches come from numpy's global generator, one permutation per pass, as in the library.

    Args:
        policy: An actor-critic with ``mlp_extractor``, ``action_net``, ``value_net`` and ``log_std``.
        optimizer: Of all the policy's parameters.
        rollout: What was seen.
        rules: Settings.

    Returns:
        Means over all minibatches, by the library's names: ``policy_gradient_loss``, ``value_loss``, ``entropy_loss``,
        ``clip_fraction``, ``approx_kl`` (of the last pass) and the last minibatch's ``loss``.
    """
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    statistics: list[Tensor] = []
    divergences: list[Tensor] = []
    for epoch in range(rules.n_epochs):
        order = torch.as_tensor(np.random.permutation(len(rollout)))  # noqa: NPY002  (the library's own generator)
        for rows in torch.split(order.to(rollout.actions.device), rules.batch_size):
            losses, log_ratio = _losses(policy, rollout, rows, rules)
            optimizer.zero_grad()
            torch.autograd.backward(losses[0])
            nn.utils.clip_grad_norm_(parameters, rules.max_grad_norm)
            optimizer.step()
            with torch.no_grad():
                ratio = log_ratio.exp()
                clipped = ((ratio - 1).abs() > rules.clip_range).float().mean()
                statistics.append(torch.stack([*(loss.detach() for loss in losses), clipped]))
                if epoch == rules.n_epochs - 1:
                    divergences.append((ratio - 1 - log_ratio).mean())
    table = torch.stack(statistics).double().cpu()
    _, policy_loss, value_loss, entropy_loss, clip_fraction = table.mean(0).tolist()
    return {
        "policy_gradient_loss": policy_loss,
        "value_loss": value_loss,
        "entropy_loss": entropy_loss,
        "clip_fraction": clip_fraction,
        "approx_kl": float(torch.stack(divergences).mean()),
        "loss": float(table[-1, 0]),
    }


def _losses(policy: Any, rollout: Rollout, rows: Tensor, rules: PPORules) -> tuple[list[Tensor], Tensor]:
    """Total, policy, value and entropy loss of a minibatch, and its log-ratios ``[m]``."""
    observations, log_std = rollout.observations[rows], policy.log_std
    mean = policy.action_net(policy.mlp_extractor.forward_actor(observations))
    values = policy.value_net(policy.mlp_extractor.forward_critic(observations)).squeeze(1)
    size = log_std.numel()
    spread = log_std.sum()
    standard = (rollout.actions[rows] - mean) * torch.exp(-log_std)
    log_ratio = -0.5 * (standard.square().sum(1) + size * _LOG_TWO_PI) - spread - rollout.log_probs[rows]
    advantages = rollout.advantages[rows]
    if rules.normalize_advantage and len(rows) > 1:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    ratio = log_ratio.exp()
    limited = ratio.clamp(1 - rules.clip_range, 1 + rules.clip_range)
    policy_loss = -torch.minimum(advantages * ratio, advantages * limited).mean()
    value_loss = nn.functional.mse_loss(values, rollout.returns[rows])
    entropy_loss = -(spread + 0.5 * size * (1 + _LOG_TWO_PI))
    total = policy_loss + rules.ent_coef * entropy_loss + rules.vf_coef * value_loss
    return [total, policy_loss, value_loss, entropy_loss], log_ratio.detach()
