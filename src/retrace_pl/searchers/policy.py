"""Trained policies as files: safetensors weights beside JSON settings, never a pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from retrace_pl.envs import LatentSettings, random_stream
from retrace_pl.errors import InputError
from retrace_pl.files import write_json, write_tensors
from retrace_pl.searchers.base import PolicyState
from retrace_pl.searchers.randomness import isolated_global_random
from retrace_pl.searchers.sb3 import resolve_algorithm

__all__ = ["LatentPolicy", "load_policy", "rebuild_policy", "save_policy"]

_TRUSTED = ("stable_baselines3.", "sb3_contrib.")


@dataclass(frozen=True)
class LatentPolicy:
    """A trained policy that can be sampled without the models it was trained against.

    Args:
        network: The Stable-Baselines3 policy.
        settings: How its actions become latents.
        latent_dim: Length of a latent.
    """

    network: Any
    settings: LatentSettings
    latent_dim: int

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Latents ``[n, d]`` at the end of ``n`` episodes that start at the prior."""
        random = random_stream(seed, "policy")
        bound = self.settings.bound(self.latent_dim)
        latents = torch.randn(n, self.latent_dim, generator=random).clamp(-bound, bound)
        with isolated_global_random(seed):
            for _ in range(self.settings.horizon):
                action, _ = self.network.predict(latents.numpy(), deterministic=False)
                latents = self.settings.move(latents, torch.as_tensor(action).clamp(-1, 1))[1]
        return latents


def save_policy(policy: PolicyState, path: Path) -> None:
    """Write ``path`` (safetensors) and, with the suffix ``.json``, the settings beside it."""
    weights, settings = policy
    write_tensors(path, weights)
    write_json(path.with_suffix(".json"), settings)


def load_policy(path: Path) -> LatentPolicy:
    """Read a policy written by :func:`save_policy`.

    Raises:
        InputError: A file is missing or is not what its name says (a pickle, for instance, is refused unread).
    """
    try:
        weights = load_file(path)
        settings = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path} is not a stored policy (safetensors weights and JSON settings): {error}") from error
    return rebuild_policy((weights, settings))


def rebuild_policy(policy: PolicyState) -> LatentPolicy:
    """A policy from its weights and settings.

    Only algorithms of stable_baselines3 and sb3_contrib are rebuilt: a settings file must not choose what is imported.

    Raises:
        InputError: The settings are incomplete, name another package, or do not fit the weights.
    """
    weights, settings = policy
    try:
        name, kwargs, latent_dim = settings["algorithm"], settings["policy_kwargs"], settings["latent_dim"]
        latent = LatentSettings(**settings["latent"])
    except (KeyError, TypeError) as error:
        raise InputError(f"the policy's settings are incomplete: {error}") from error
    if not str(name).startswith(_TRUSTED):
        raise InputError(f"the policy's algorithm {name} is not part of stable_baselines3 or sb3_contrib; not imported")
    bound = latent.bound(latent_dim)
    with isolated_global_random(0):  # the initial weights, replaced at once
        network = resolve_algorithm(name).policy_aliases["MlpPolicy"](
            spaces.Box(-bound, bound, (latent_dim,)), spaces.Box(-1.0, 1.0, (latent_dim,)), lambda _: 0.0, **kwargs
        )
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"the policy's weights do not fit its settings: {error}") from error
    network.set_training_mode(False)
    return LatentPolicy(network, latent, latent_dim)
