import pytest
import torch

from retrace_pl.envs.toys import toy_core
from retrace_pl.errors import InputError, NotApplicable
from retrace_pl.searchers import CEMSearcher, MixtureSearcher, RandomSearcher, SB3Searcher


def ppo(**settings):
    return SB3Searcher("PPO", num_envs=16, **settings)


@pytest.mark.parametrize("budget", [300, 301])
def test_the_shares_use_exactly_the_budget(budget):
    core = toy_core()
    MixtureSearcher([RandomSearcher(), ppo(), CEMSearcher(population=20), ppo()]).search(core, budget)
    assert core.scorer.seen == core.queries == len(core.pool) == core.budget == budget
    assert core.curve[-1][0] == budget


def test_one_searcher_alone_searches_as_without_a_mixture():
    alone, mixed = toy_core(), toy_core()
    ppo().search(alone, 200, 3)
    MixtureSearcher([ppo()]).search(mixed, 200, 3)
    assert torch.equal(alone.pool.latents, mixed.pool.latents)


def test_every_place_has_a_seed_of_its_own_and_the_same_seed_gives_the_same_search():
    pools = []
    for _ in range(2):
        core = toy_core()
        MixtureSearcher([RandomSearcher(), RandomSearcher()]).search(core, 64, 1)
        pools.append(core.pool.latents.clone())
    assert torch.equal(*pools)
    assert not torch.isclose(pools[0][:32], pools[0][32:]).any()


def test_the_policy_is_the_last_ones():
    searcher = MixtureSearcher([RandomSearcher(), ppo()])
    assert searcher.policy_state() is None
    searcher.search(toy_core(), 200)
    weights, settings = searcher.policy_state()
    assert weights
    assert settings["latent_dim"] == 8
    assert MixtureSearcher([ppo(), RandomSearcher()]).policy_state() is None


def test_a_mixture_of_nothing_or_of_too_little_is_refused():
    with pytest.raises(InputError, match="at least one"):
        MixtureSearcher([])
    with pytest.raises(NotApplicable, match="cannot be shared by 3"):
        MixtureSearcher([RandomSearcher()] * 3).search(toy_core(), 2)
    with pytest.raises(NotApplicable, match="allows PPO no update"):
        MixtureSearcher([ppo()] * 4).search(toy_core(), 60)
