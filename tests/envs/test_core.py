import math

import numpy as np
import pytest
import torch
from torch import nn

from retrace_pl.envs import LatentCore, LatentEnv, LatentSettings, LatentVectorEnv, random_stream
from retrace_pl.envs.sb3 import LatentVecEnv
from retrace_pl.envs.toys import TargetScorer, toy_core
from retrace_pl.errors import InputError, RunError


def actions(n, d=8, seed=0):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_one_step_reward_is_score_minus_the_prior_term():
    core = toy_core(LatentSettings(tau=0.1, projection="none", action_scale=2.0))
    core.reset(5)
    action = actions(5)
    result = core.step(action)
    latents = 2.0 * action
    score = torch.exp(-(latents - core.scorer.target).square().mean(1))
    assert torch.allclose(result.latents, latents)
    assert torch.allclose(result.score, score)
    assert torch.allclose(result.reward, score - 0.05 * latents.square().sum(1))
    assert result.done
    assert torch.equal(core.pool.scores, result.score)


def test_the_prior_term_counts_the_latent_before_projection():
    core = toy_core(LatentSettings(tau=0.1, projection="sphere", action_scale=2.0))
    core.reset(5)
    action = actions(5)
    result = core.step(action)
    assert torch.allclose(result.latents.norm(dim=1), torch.full((5,), math.sqrt(8)), atol=1e-5)
    assert torch.allclose(torch.cosine_similarity(result.latents, action), torch.ones(5), atol=1e-5)
    assert torch.allclose(result.score - result.reward, 0.05 * (2 * action).square().sum(1), atol=1e-6)


def test_residual_adds_to_the_initial_latent():
    core = toy_core(LatentSettings(residual=True, projection="none", action_scale=0.5))
    start = core.reset(4).clone()
    assert torch.allclose(core.step(actions(4)).latents, start + 0.5 * actions(4))


def test_horizon_mixes_latents_and_ends_together():
    core = toy_core(LatentSettings(horizon=3, rho=0.25, projection="none", action_scale=2.0))
    latents = core.reset(4).clone()
    for step in range(3):
        result = core.step(actions(4, seed=step))
        latents = 0.25 * latents + 0.75 * 2.0 * actions(4, seed=step)
        assert torch.allclose(result.latents, latents, atol=1e-6)
        assert result.done == (step == 2)
    assert core.queries == 12


def test_a_zero_action_stays_finite_on_the_sphere():
    core = toy_core(LatentSettings(projection="sphere"))
    core.reset(2)
    assert torch.isfinite(core.step(torch.zeros(2, 8)).latents).all()


def test_queries_are_counted_at_the_scorer_and_limited():
    core = toy_core()
    core.restart(budget=10, seed=0)
    core.evaluate(core.prior(7))
    core.generate(core.prior(5))  # looking is free
    assert (core.queries, core.remaining, core.scorer.seen) == (7, 3, 7)
    with pytest.raises(RunError, match="query budget exceeded: 7 of 10 used and 4 more"):
        core.evaluate(core.prior(4))
    assert core.scorer.seen == 7
    core.extend(11)
    core.evaluate(core.prior(4))
    assert core.queries == len(core.pool) == 11


def test_large_batches_are_scored_in_parts():
    whole, parts = toy_core(), toy_core()
    parts.batch_size = 3
    latents = whole.prior(10)
    assert torch.equal(whole.evaluate(latents), parts.evaluate(latents))


def test_the_curve_has_about_a_hundred_points_and_the_last_query():
    core = toy_core()
    core.restart(budget=20_480, seed=0)
    while core.remaining:
        core.evaluate(core.prior(64))
    assert 50 <= len(core.curve) <= 101
    queries, best, mean = core.curve[-1]
    assert queries == 20_480
    assert best == core.pool.scores.max()
    assert mean == pytest.approx(core.pool.scores.topk(64).values.mean().item(), rel=1e-6)
    assert [point[1] for point in core.curve] == sorted(point[1] for point in core.curve)


def test_the_same_seed_gives_the_same_latents():
    assert torch.equal(toy_core(seed=3).reset(4), toy_core(seed=3).reset(4))
    assert not torch.equal(toy_core(seed=3).reset(4), toy_core(seed=4).reset(4))
    first, other = (torch.randn(4, generator=random_stream(0, purpose)) for purpose in ("a", "b"))
    assert not torch.equal(first, other)


def test_three_faces_give_the_same_rewards_for_the_same_actions():
    settings = LatentSettings(tau=0.1, horizon=2)
    action = actions(6).numpy()
    rewards = {}
    for face in (LatentVectorEnv, LatentVecEnv):
        core = toy_core(settings)
        env = face(core, 6)
        env.reset()
        core._current = torch.zeros(6, 8)
        rewards[face] = np.asarray(env.step(action)[1], dtype=np.float32)
    single = []
    for row in action:
        env = LatentEnv(toy_core(settings))
        env.reset(seed=0)
        env.core._current = torch.zeros(1, 8)
        single.append(env.step(row)[1])
    assert np.array_equal(rewards[LatentVectorEnv], rewards[LatentVecEnv])
    assert rewards[LatentVecEnv] == pytest.approx(single, abs=1e-6)


def test_the_probe_is_logged_and_costs_no_query():
    core = toy_core()
    core.probe = lambda inputs: {"mine": float(len(inputs))}
    core.evaluate(core.prior(100))
    scalars = core.scalars(limit=16)
    assert scalars["mine"] == 16.0
    assert scalars["latent/norm"] == pytest.approx(core.last_latents.norm(dim=1).mean().item())
    assert core.queries == 100


@pytest.mark.parametrize(
    ("setting", "value"),
    [("tau", -1.0), ("horizon", 0), ("rho", 1.0), ("projection", "cube"), ("action_scale", 0.0)],
)
def test_bad_settings_are_named(setting, value):
    with pytest.raises(InputError, match=f"latent.{setting}"):
        LatentSettings(**{setting: value})


def test_refuses_what_cannot_be_searched():
    with pytest.raises(InputError, match="latent_dim"):
        LatentCore(nn.Linear(2, 2), TargetScorer(torch.zeros(2)))
    core = toy_core()
    core.reset(2)
    with pytest.raises(InputError, match="actions must have the shape"):
        core.step(torch.zeros(3, 8))
    with pytest.raises(InputError, match="budget must be at least 1"):
        core.restart(0, seed=0)
