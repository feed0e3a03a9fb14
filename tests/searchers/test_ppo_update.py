import copy

import pytest
import torch
from stable_baselines3 import PPO

from retrace_pl.envs import LatentSettings
from retrace_pl.envs.toys import toy_core
from retrace_pl.searchers import SB3Searcher
from retrace_pl.searchers.randomness import isolated_global_random

REPORTED = ("policy_gradient_loss", "value_loss", "entropy_loss", "clip_fraction", "approx_kl", "loss", "std")


class Silent:
    def on_rollout_start(self):
        pass

    def on_rollout_end(self):
        pass

    def update_locals(self, values):
        pass

    def on_step(self):
        return True


def trained(train, seed=0, **settings):
    """A policy after one rollout and one update by ``train``, and what was logged."""
    core = toy_core(LatentSettings(horizon=2))
    core.restart(4096, 0)
    with isolated_global_random(seed):
        model = SB3Searcher(num_envs=24, n_steps=2, net_arch=(16, 16), **settings)._build(core, 4096, seed)
        model._setup_learn(4096, Silent(), True, "", False)
        model.collect_rollouts(model.env, Silent(), model.rollout_buffer, model.n_steps)
    with isolated_global_random(seed):
        train(model)
    return model.policy.state_dict(), dict(model.logger.name_to_value)


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size of 47")
@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 16, "n_epochs": 3},
        {"batch_size": 47, "n_epochs": 2},  # the last minibatch is a single transition
        {"batch_size": 48, "normalize_advantage": False, "ent_coef": 0.3, "clip_range": 0.05},
        {"batch_size": 24, "algorithm_kwargs": {"max_grad_norm": 0.01, "vf_coef": 2.0}},
    ],
    ids=["default", "remainder", "plain advantage", "short gradients"],
)
def test_the_update_is_that_of_the_library(settings):
    ours, logged = trained(lambda model: model.train(), **settings)
    theirs, reference = trained(PPO.train, **settings)
    for name, weight in theirs.items():
        assert torch.allclose(ours[name], weight, rtol=1e-4, atol=1e-6), name
    for name in REPORTED:
        assert logged[f"train/{name}"] == pytest.approx(reference[f"train/{name}"], rel=1e-3, abs=1e-5), name
    assert logged["train/n_updates"] == reference["train/n_updates"]
    start = trained(lambda model: None, **settings)[0]
    assert any((start[name] - weight).abs().max() > 1e-3 for name, weight in theirs.items())


@pytest.mark.parametrize("algorithm_kwargs", [{"target_kl": 1e-9}, {"clip_range_vf": 0.1}, {"use_sde": True}])
def test_what_the_update_does_not_cover_is_left_to_the_library(algorithm_kwargs):
    settings = {"batch_size": 16, "algorithm_kwargs": algorithm_kwargs}
    ours, theirs = (trained(train, **copy.deepcopy(settings))[0] for train in (lambda m: m.train(), PPO.train))
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
