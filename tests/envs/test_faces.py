import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as check_sb3_env
from stable_baselines3.common.vec_env import VecNormalize

from retrace_pl.envs import LatentEnv, LatentSettings, LatentVectorEnv
from retrace_pl.envs.sb3 import LatentVecEnv
from retrace_pl.envs.toys import toy_core


@pytest.mark.parametrize("horizon", [1, 3])
def test_the_registered_environment_passes_gymnasiums_checker(horizon):
    env = gym.make("ReTrace/Latent-v0", core=toy_core(LatentSettings(horizon=horizon)))
    assert isinstance(env.unwrapped, LatentEnv)
    check_env(env.unwrapped)


def test_the_environment_passes_sb3s_checker():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_sb3_env(LatentEnv(toy_core()))


def test_the_vector_environment_is_made_by_its_id():
    env = gym.make_vec("ReTrace/Latent-v0", num_envs=5, core=toy_core())
    assert isinstance(env.unwrapped, LatentVectorEnv)
    observations, _ = env.reset(seed=0)
    assert observations.shape == (5, 8)


def test_the_vector_face_resets_in_the_same_step():
    env = LatentVectorEnv(toy_core(), 4)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.reset(seed=1)
    action = np.full((4, 8), 0.5, np.float32)
    observations, rewards, terminated, truncated, infos = env.step(action)
    assert terminated.all()
    assert not truncated.any()
    assert rewards.shape == (4,)
    reached = env.core.settings.project(torch.as_tensor(3 * action))
    assert infos["final_obs"] == pytest.approx(reached.numpy())
    assert infos["_final_obs"].all()
    assert np.array_equal(observations, env.core.current.numpy())  # the next episodes, not where the last ones ended
    assert env.observation_space.contains(observations)


def test_the_vector_face_continues_within_the_horizon():
    env = LatentVectorEnv(toy_core(LatentSettings(horizon=2)), 3)
    env.reset(seed=[5, None, None])
    _, _, terminated, _, infos = env.step(env.action_space.sample())
    assert not terminated.any()
    assert "final_obs" not in infos
    assert env.step(env.action_space.sample())[2].all()


def test_the_sb3_face_reports_where_episodes_ended():
    env = LatentVecEnv(toy_core(), 3)
    env.seed(0)
    env.reset()
    observations, _, dones, infos = env.step(np.full((3, 8), -0.5, np.float32))
    assert dones.all()
    reached = env.core.settings.project(torch.full((3, 8), -1.5)).numpy()
    assert np.stack([info["terminal_observation"] for info in infos]) == pytest.approx(reached)
    assert np.array_equal(observations, env.core.current.numpy())


def test_the_sb3_face_answers_what_sb3_asks():
    env = LatentVecEnv(toy_core(), 3)
    assert env.get_attr("render_mode") == [None] * 3
    env.set_attr("note", 7)
    assert env.get_attr("note", [0, 2]) == [7, 7]
    assert env.env_is_wrapped(VecNormalize) == [False] * 3
    assert len(env.env_method("prior", 2, indices=0)) == 1
    env.close()


def test_returned_arrays_do_not_change_later():
    env = LatentVecEnv(toy_core(), 3)
    first = env.reset()
    kept = first.copy()
    env.step(np.ones((3, 8), np.float32))
    env.reset()
    assert np.array_equal(first, kept)
