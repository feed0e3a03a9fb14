"""One candidate at a time, as a ``gymnasium.Env``: for checkers, examples and other libraries' agents."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from retrace_pl.envs.core import LatentCore

__all__ = ["LatentEnv", "latent_spaces"]

FloatArray = NDArray[np.float32]


def latent_spaces(core: LatentCore) -> tuple[spaces.Box, spaces.Box]:
    """Observation space (latents within the settings' bound) and action space ``[-1, 1]^d`` of one candidate."""
    bound = core.settings.bound(core.latent_dim)
    shape = (core.latent_dim,)
    return (
        spaces.Box(-bound, bound, shape, np.float32),
        spaces.Box(-1.0, 1.0, shape, np.float32),
    )


class LatentEnv(gym.Env[Any, Any]):
    """Latent search for one candidate, registered as ``ReTrace/Latent-v0``.

    Observation: the current latent, float32 ``[d]``. Action: float32 ``[d]`` in [-1, 1]. Reward: the trace score
    minus the prior term of :class:`LatentSettings`. Single candidates use the models badly: searchers take the
    batched faces.

    Args:
        core: The search problem; its query budget applies.
        render_mode: Always ``None``: candidates are looked at in the report.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, core: LatentCore, render_mode: str | None = None) -> None:
        self.core = core
        self.render_mode = render_mode
        self.observation_space, self.action_space = latent_spaces(core)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Draw an initial latent; ``seed`` restarts the random stream, ``options`` are not used."""
        super().reset(seed=seed)
        if seed is not None:
            self.core.seed(seed)
        return self.core.reset(1)[0].cpu().numpy().copy(), {}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Evaluate one candidate; ``info["score"]`` is its trace score."""
        result = self.core.step(torch.as_tensor(np.asarray(action, np.float32))[None])
        latent = result.latents[0].cpu().numpy().copy()
        return latent, float(result.reward[0]), result.done, False, {"score": float(result.score[0])}
