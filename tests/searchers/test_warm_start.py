import pytest
import torch

from retrace_pl.envs import LatentSettings
from retrace_pl.envs.toys import toy_core
from retrace_pl.errors import InputError
from retrace_pl.searchers import SB3Searcher
from retrace_pl.searchers.warm_start import start_from_elites


def ppo(**settings):
    return SB3Searcher("PPO", num_envs=16, n_steps=2, learning_rate=3e-3, net_arch=(64, 64), **settings)


@pytest.mark.parametrize("latent", [LatentSettings(), LatentSettings(projection="none", residual=True)])
def test_the_policy_imitates_the_nearest_of_the_best(latent):
    core = toy_core(latent)
    core.restart(1000, 0)
    policy = ppo()._build(core, 1000, 0).policy
    start_from_elites(core, policy, 400, 0)
    assert core.queries == 400
    elites = core.pool.latents[core.pool.scores.topk(20).indices]
    drawn = torch.randn(200, core.latent_dim, generator=torch.Generator().manual_seed(9))
    nearest = elites[(drawn @ elites.T).argmax(1)]
    action = policy.get_distribution(drawn).distribution.mean.detach()
    reached = core.settings.affine(drawn)[0] + core.settings.action_scale * action
    assert (reached - nearest).square().mean() < 0.3 * nearest.square().mean()
    assert reached.std(0).mean() > 0.3  # many means, not one


def test_its_queries_are_part_of_the_budget():
    core = toy_core()
    ppo(warm_start=100).search(core, 500, 0)
    assert core.scorer.seen == core.queries == len(core.pool) == 500
    with pytest.raises(InputError, match=r"searcher\.warm_start"):
        ppo(warm_start=490).search(toy_core(), 500)


def test_it_starts_better_than_the_prior():
    warm, cold = toy_core(), toy_core()
    ppo(warm_start=256, log_std_init=-1.5).search(warm, 512, 0)
    ppo(log_std_init=-1.5).search(cold, 512, 0)
    assert warm.pool.scores[256:].mean() > cold.pool.scores[256:].mean() + 0.1


def test_the_same_seed_gives_the_same_search():
    pools = []
    for _ in range(2):
        core = toy_core()
        ppo(warm_start=64).search(core, 200, 5)
        pools.append(core.pool.latents.clone())
    assert torch.equal(*pools)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="warm_start"):
        SB3Searcher("SAC", warm_start=10)
    with pytest.raises(InputError, match="warm_start"):
        ppo(warm_start=-1)
    core = toy_core()
    with pytest.raises(InputError, match="elite fraction"):
        start_from_elites(core, ppo()._build(core, 100, 0).policy, 10, 0, elite_fraction=0.0)
