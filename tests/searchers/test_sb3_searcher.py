import math
import sys

import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from retrace_pl.envs import LatentSettings, LatentVectorEnv
from retrace_pl.envs.toys import toy_core
from retrace_pl.errors import InputError, NotApplicable
from retrace_pl.searchers import SB3Searcher, resolve_algorithm
from retrace_pl.searchers.training_log import kl_to_prior


class Scalars:
    def __init__(self):
        self.seen = []

    def on_start(self, budget):
        pass

    def on_update(self, queries, pool, scalars):
        self.seen.append(scalars)

    def on_end(self):
        pass


@pytest.mark.parametrize(
    "searcher",
    [
        SB3Searcher("A2C", num_envs=32),
        SB3Searcher("stable_baselines3.SAC", num_envs=32, gradient_steps=1, batch_size=32),
        SB3Searcher("TD3", num_envs=32, gradient_steps=1, batch_size=32),
        SB3Searcher("DDPG", num_envs=32, gradient_steps=1, batch_size=32),
        SB3Searcher("TRPO", num_envs=32, batch_size=64),
        SB3Searcher("sb3_contrib.CrossQ", num_envs=32, gradient_steps=1, batch_size=32),
    ],
    ids=lambda searcher: searcher.algorithm.__name__,
)
@pytest.mark.parametrize("horizon", [1, 2])
def test_every_algorithm_uses_exactly_the_budget(searcher, horizon):
    core = toy_core(LatentSettings(horizon=horizon))
    observer = Scalars()
    searcher.search(core, 300, 0, observer)
    assert core.scorer.seen == core.queries == len(core.pool) == 300
    assert any(name.startswith("train/") for scalars in observer.seen for name in scalars)
    weights, settings = searcher.policy_state()
    assert weights
    assert settings["latent"]["horizon"] == horizon


@pytest.mark.parametrize(("name", "expected"), [("PPO", PPO), ("stable_baselines3.SAC", SAC), (PPO, PPO)])
def test_algorithms_are_found_by_name(name, expected):
    assert resolve_algorithm(name) is expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PPOO", "no algorithm PPOO"),
        ("stable_baselines3.common.vec_env.VecEnv", "is not an on-policy or off-policy"),
        ("retrace_pl.envs.LatentVectorEnv", "is not an on-policy or off-policy"),
        ("no_such_package.PPO", "cannot import no_such_package.PPO"),
        ("stable_baselines3.common.base_class.BaseAlgorithm", "is not an on-policy or off-policy"),
        (LatentVectorEnv, "is not an on-policy or off-policy"),
        (BaseAlgorithm, "is not an on-policy or off-policy"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        SB3Searcher(name)


@pytest.mark.parametrize("name", ["TRPO", "sb3_contrib.TRPO"])
def test_a_missing_sb3_contrib_is_explained(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)  # what `import` meets then is a ModuleNotFoundError
    with pytest.raises(InputError, match=r"TRPO needs sb3-contrib; install it with: pip install 'retrace_pl\[rl\]'"):
        SB3Searcher(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "SAC", "clip_range": 0.1}, "SAC has no setting clip_range"),
        ({"algorithm": "A2C", "n_epochs": 3}, "A2C has no setting n_epochs"),
        ({"algorithm": "SAC", "n_steps": 2}, "n_steps"),
        ({"algorithm": "PPO", "exploration_std": 0.1}, "exploration_std"),
        ({"algorithm_kwargs": {"clip": 0.1}}, "PPO has no setting clip;"),
        ({"algorithm_kwargs": {"seed": 1}}, "PPO has no setting seed"),
    ],
)
def test_settings_the_algorithm_does_not_have_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        SB3Searcher(**settings)


def test_discrete_algorithms_are_refused():
    with pytest.raises(InputError, match="DQN refuses these settings"):
        SB3Searcher("DQN", num_envs=4).search(toy_core(), 100)


def test_a_budget_below_one_rollout_is_refused():
    with pytest.raises(NotApplicable, match=r"budget of 100 queries allows PPO no update: a rollout takes 128"):
        SB3Searcher(num_envs=64, n_steps=2).search(toy_core(), 100)


def test_settings_reach_the_algorithm():
    searcher = SB3Searcher(
        num_envs=16,
        n_steps=4,
        learning_rate=1e-4,
        net_arch=(8, 9),
        log_std_init=-1.5,
        clip_range=0.1,
        batch_size=32,
        algorithm_kwargs={"vf_coef": 0.25},
    )
    core = toy_core(LatentSettings(tau=0.07))
    searcher.search(core, 64)
    model = searcher._model
    assert (model.n_steps, model.learning_rate, model.vf_coef) == (4, 1e-4, 0.25)
    assert model.gae_lambda == 1.0
    assert model.clip_range(1.0) == 0.1
    assert model.ent_coef == 0.07  # the prior term's weight, unless it is set
    assert model.policy.log_std.mean().item() == pytest.approx(-1.5, abs=0.05)
    assert [layer.out_features for layer in model.policy.mlp_extractor.policy_net[::2]] == [8, 9]


def test_the_logged_numbers():
    observer = Scalars()
    SB3Searcher(num_envs=64, batch_size=64).search(toy_core(), 1024, 0, observer)
    expected = {
        "reward/mean",
        "kl/prior",
        "train/approx_kl",
        "train/clip_fraction",
        "train/entropy_loss",
        "train/value_loss",
    }
    assert expected <= set().union(*observer.seen)
    assert all(math.isfinite(value) for scalars in observer.seen for value in scalars.values())


def test_single_candidates_are_not_reported_one_by_one():
    observer = Scalars()
    SB3Searcher("SAC", num_envs=1, algorithm_kwargs={"learning_starts": 5000}).search(toy_core(), 1000, 0, observer)
    assert 100 < len(observer.seen) < 210


def test_kl_to_the_prior_is_that_of_torch():
    core = toy_core(LatentSettings(action_scale=2.0, projection="none"))
    searcher = SB3Searcher(num_envs=32)
    searcher.search(core, 256)
    distribution = searcher._model.policy.get_distribution(core.current).distribution
    policy = torch.distributions.Normal(2.0 * distribution.mean, 2.0 * distribution.stddev)
    reference = torch.distributions.kl_divergence(policy, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    assert kl_to_prior(searcher._model, core) == pytest.approx(reference.item(), rel=1e-4)


def test_a_strong_prior_term_returns_the_prior():
    # The optimum exp(s / tau) N(0, I) is close to the prior for a large tau: a policy that starts far narrower widens.
    core = toy_core(LatentSettings(tau=2.0, projection="none"), latent_dim=4)
    searcher = SB3Searcher(
        num_envs=512,
        n_steps=1,
        n_epochs=5,
        batch_size=512,
        learning_rate=1e-2,
        log_std_init=-2.5,
        normalize_advantage=False,
    )
    searcher.search(core, 20_480, seed=0)
    assert core.pool.latents[:512].square().sum(1).mean() < 1.0
    # E|z|^2 = d = 4 for the prior; clipping damps the reward's gradient, not the entropy's, so a little more is found.
    assert core.pool.latents[-2048:].square().sum(1).mean() == pytest.approx(4.0, rel=0.5)
    assert kl_to_prior(searcher._model, core) < 0.5
