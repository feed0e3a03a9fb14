"""Latent-space search as a reinforcement-learning problem: one batched torch core and three thin faces.

``LatentVecEnv``, the Stable-Baselines3 face, lives in :mod:`retrace_pl.envs.sb3` and is not imported here, so that
the other faces work without loading Stable-Baselines3.
"""

import gymnasium as gym

from retrace_pl.envs.core import LatentCore, LatentSettings, LatentStep, random_stream
from retrace_pl.envs.pool import CandidatePool, farthest_points
from retrace_pl.envs.single import LatentEnv, latent_spaces
from retrace_pl.envs.vector import LatentVectorEnv

__all__ = [
    "CandidatePool",
    "LatentCore",
    "LatentEnv",
    "LatentSettings",
    "LatentStep",
    "LatentVectorEnv",
    "farthest_points",
    "latent_spaces",
    "random_stream",
]

if "ReTrace/Latent-v0" not in gym.registry:
    gym.register(
        id="ReTrace/Latent-v0",
        entry_point="retrace_pl.envs.single:LatentEnv",
        vector_entry_point="retrace_pl.envs.vector:LatentVectorEnv",
    )
