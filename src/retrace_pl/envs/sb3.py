"""Many candidates at a time, as a Stable-Baselines3 ``VecEnv``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from retrace_pl.envs.core import LatentCore
from retrace_pl.envs.single import FloatArray, latent_spaces

__all__ = ["LatentVecEnv"]


class LatentVecEnv(VecEnv):
    """Batched latent search for Stable-Baselines3: one call of the models per step for all candidates.

    Only latents and rewards become numpy arrays; images stay on the models' device. Never wrap it in
    ``VecNormalize`` with ``norm_reward``: that erases the differences between rewards.

    Args:
        core: The search problem; its query budget applies.
        num_envs: Candidates per step.
    """

    def __init__(self, core: LatentCore, num_envs: int = 128) -> None:
        self.core = core
        self.render_mode = None
        super().__init__(num_envs, *latent_spaces(core))
        self._actions: FloatArray | None = None

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the initial latents at once."""
        if seed is not None:
            self.core.seed(seed)
        return [seed] * self.num_envs

    def reset(self) -> FloatArray:
        """Draw initial latents ``[num_envs, d]``."""
        return self.core.reset(self.num_envs).cpu().numpy().copy()

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        """Keep the actions ``[num_envs, d]`` in [-1, 1] for :meth:`step_wait`."""
        self._actions = np.asarray(actions, np.float32)

    def step_wait(self) -> VecEnvStepReturn:
        """Evaluate one candidate per environment; episodes that end are started again at once."""
        result = self.core.step(torch.as_tensor(self._actions))
        observations = result.latents.cpu().numpy().copy()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if result.done:
            infos = [{"terminal_observation": reached} for reached in observations]
            observations = self.reset()
        return observations, result.reward.cpu().numpy(), np.full(self.num_envs, result.done), infos

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, once per asked environment."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute; the environments share one core, so ``indices`` make no difference."""
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the shared core, once, and return its result for every asked environment."""
        result = getattr(self.core, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Always ``False``: there are no single environments to wrap."""
        return [False for _ in self._get_indices(indices)]
