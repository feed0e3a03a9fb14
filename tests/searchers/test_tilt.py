"""What a policy with the prior term converges to: the exponentially tilted prior, p0(z) exp(s(z) / tau).

With a Gaussian prior and a linear or quadratic score the tilt is a Gaussian too, so the distribution that PPO samples
after a search can be compared with it in closed form.
"""

from functools import cache

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from retrace_pl.envs import LatentCore, LatentSettings
from retrace_pl.envs.toys import IdentityGenerator, QuadraticScorer
from retrace_pl.searchers import SB3Searcher, rebuild_policy

SLOPE = torch.tensor([1.0, -0.5])
PRIOR = Normal(torch.zeros(2), torch.ones(2))


def tilted(curvature, tau):
    mean, variance = QuadraticScorer(SLOPE, curvature).tilt(tau)
    return Normal(mean, torch.full((2,), variance**0.5))


@cache
def sampled(curvature, tau):
    """Gaussian fitted to 8,192 latents of the policy that PPO ends with."""
    scorer, settings = QuadraticScorer(SLOPE, curvature), LatentSettings(tau=tau, projection="none", action_scale=6.0)
    searcher = SB3Searcher(
        num_envs=512,
        n_steps=1,
        n_epochs=1,  # one pass over the whole rollout: clipping would hold back the reward and not the entropy
        batch_size=512,
        learning_rate=1e-2,
        net_arch=(16,),
        log_std_init=-2.5,
        normalize_advantage=False,
    )
    searcher.search(LatentCore(IdentityGenerator(2), scorer, settings), 512 * 200, seed=0)
    latents = rebuild_policy(searcher.policy_state()).sample(8192, seed=1)
    return Normal(latents.mean(0), latents.std(0))


@pytest.mark.parametrize("curvature", [0.0, 1.0])
def test_the_tilt_is_the_optimum_of_the_objective(curvature):
    # E[s] - tau KL(q || p0), over Gaussians q with one variance, is highest at the tilt.
    scorer, tau = QuadraticScorer(SLOPE, curvature), 0.7

    def objective(mean, variance):
        expected = mean @ SLOPE - curvature / 2 * (mean.square().sum() + 2 * variance)
        return expected - tau * kl_divergence(Normal(mean, torch.full((2,), variance**0.5)), PRIOR).sum()

    mean, variance = scorer.tilt(tau)
    best = objective(mean, variance)
    for step in (-0.1, 0.1):
        assert objective(mean + torch.tensor([step, 0.0]), variance) < best
        assert objective(mean, variance + step) < best


@pytest.mark.parametrize(("curvature", "tau"), [(1.0, 0.05), (1.0, 0.5), (1.0, 4.0), (0.0, 1.0), (0.0, 4.0)])
def test_the_policy_samples_the_tilted_prior(curvature, tau):
    found, target = sampled(curvature, tau), tilted(curvature, tau)
    assert torch.allclose(found.mean, target.mean, atol=0.25 * float(target.stddev[0]))
    assert torch.allclose(found.variance, target.variance, rtol=0.2)
    assert kl_divergence(found, target).sum() < 0.03
    # and not just anything near it: the tilts of half and of twice tau are farther away
    others = [kl_divergence(found, tilted(curvature, factor * tau)).sum() for factor in (0.5, 2.0)]
    assert kl_divergence(found, target).sum() < 0.5 * min(others)


def test_the_policy_returns_to_the_prior_as_tau_grows():
    distances = [float(kl_divergence(sampled(1.0, tau), PRIOR).sum()) for tau in (0.05, 0.5, 4.0, 100.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 2.0
    assert distances[-1] < 0.03
