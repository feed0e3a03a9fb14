"""Every file of configs/searcher gives a searcher that runs."""

from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser

from retrace_pl.envs import LatentCore
from retrace_pl.envs.toys import IdentityGenerator, TargetScorer, toy_core
from retrace_pl.searchers import CMAESSearcher, GradientAscentSearcher, SB3Searcher, Searcher

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "searcher").glob("*.yaml"))


def load(name):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--searcher", type=Searcher, sub_configs=True)
    file = next(config for config in CONFIGS if config.stem == name)
    return parser.instantiate(parser.parse_args(["--searcher", str(file)])).searcher


class Climbable(TargetScorer):
    def differentiable_score(self, inputs, *, second_order=True):
        return torch.exp(-(inputs - self.target).square().mean(1))


@pytest.mark.parametrize("name", [config.stem for config in CONFIGS])
def test_a_config_gives_a_searcher_that_runs(name):
    core = LatentCore(IdentityGenerator(8), Climbable(torch.zeros(8)))
    budget = 200 if name.startswith("sac") else 600  # a rollout of PPO takes 512
    assert len(load(name).search(core, budget)) == budget


def test_the_files_give_what_their_names_say():
    assert isinstance(load("cma_es"), CMAESSearcher)
    assert isinstance(load("gradient"), GradientAscentSearcher)


def test_sac_has_the_hyperparameters_of_rlb_mi():
    searcher = load("sac_rlb_mi")
    assert isinstance(searcher, SB3Searcher)
    core = toy_core()
    searcher.search(core, 200)
    assert core.scorer.seen == core.queries == 200
    model = searcher._model
    assert type(model).__name__ == "SAC"
    assert (model.learning_rate, model.batch_size, model.tau) == (5e-4, 256, 1e-2)
    assert model.buffer_size == 200  # capped by the budget
    assert [layer.out_features for layer in model.actor.latent_pi[::2]] == [256, 256]
    assert model._n_updates == 2 * 16  # three batches of 64 queries, the first without an update
