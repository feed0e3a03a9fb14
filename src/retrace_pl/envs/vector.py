"""Many candidates at a time, as a ``gymnasium.vector.VectorEnv``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from retrace_pl.envs.core import LatentCore
from retrace_pl.envs.single import FloatArray, latent_spaces

__all__ = ["LatentVectorEnv"]


class LatentVectorEnv(VectorEnv[FloatArray, FloatArray, NDArray[Any]]):
    """Batched latent search with same-step autoreset: one call of the models per step for all candidates.

    When the episodes end, ``step`` already returns the initial latents of the next ones; the latents that were
    reached are in ``infos["final_obs"]``. Episodes of all candidates end together.

    Args:
        core: The search problem; its query budget applies.
        num_envs: Candidates per step.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, core: LatentCore, num_envs: int = 128) -> None:
        self.core = core
        self.num_envs = num_envs
        self.render_mode = None
        self.single_observation_space, self.single_action_space = latent_spaces(core)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Draw initial latents ``[num_envs, d]``; of a list of seeds the first one counts, ``options`` are not used."""
        first = seed[0] if isinstance(seed, list) and seed else seed
        super().reset(seed=first if isinstance(first, int) else None)
        if isinstance(first, int):
            self.core.seed(first)
        return self._reset_array(), {}

    def _reset_array(self) -> FloatArray:
        return self.core.reset(self.num_envs).cpu().numpy().copy()

    def step(self, actions: FloatArray) -> tuple[FloatArray, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Evaluate one candidate per environment.

        Args:
            actions: float32 ``[num_envs, d]`` in [-1, 1].

        Returns:
            Observations, rewards, terminations, truncations (never), and infos with ``score`` for every candidate.
        """
        result = self.core.step(torch.as_tensor(np.asarray(actions, np.float32)))
        observations = result.latents.cpu().numpy().copy()
        everyone = np.ones(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = {"score": result.score.cpu().numpy().copy(), "_score": everyone}
        if result.done:
            final = {"final_obs": observations, "final_info": dict(infos)}
            infos |= final | {"_final_obs": everyone, "_final_info": everyone}
            observations = self._reset_array()
        return (
            observations,
            result.reward.cpu().numpy().astype(np.float64),
            np.full(self.num_envs, result.done),
            np.zeros(self.num_envs, dtype=np.bool_),
            infos,
        )
