import pytest
import torch

from retrace_pl.attacks import AttackContext, PriorTopK, ReTrace, prior_only
from retrace_pl.envs import LatentSettings
from retrace_pl.envs.toys import IdentityGenerator, TargetScorer
from retrace_pl.errors import InputError
from retrace_pl.searchers import CEMSearcher, RandomSearcher

TARGET = torch.tensor([1.0, -1.0, 1.0, -1.0])


def context(**settings):
    given = {"pair": None, "generator": IdentityGenerator(4), "scorer": TargetScorer(TARGET), "budget": 1000}
    return AttackContext(**(given | settings))


def test_it_is_the_plain_best_of_the_prior():
    given = context(searcher=CEMSearcher())  # the context's searcher is not for this attack
    found = PriorTopK(top_k=16).reconstruct(given)
    assert given.scorer.seen == found.queries == len(found.pool) == 1000
    assert torch.equal(found.scores, found.pool.scores.topk(16).values)
    assert found.policy is None
    assert found.curve[-1][0] == 1000
    early, late = found.pool.scores[:500].mean(), found.pool.scores[500:].mean()
    assert abs(early - late) < 0.05  # nothing was learned on the way


def test_it_draws_what_random_search_and_the_prior_only_control_draw():
    found = PriorTopK(16).reconstruct(context(seed=3))
    diverse = ReTrace(RandomSearcher(), 16, tolerance=0.2).reconstruct(context(seed=3))
    assert torch.equal(found.pool.latents, diverse.pool.latents)
    assert torch.pdist(found.latents).mean() < torch.pdist(diverse.latents).mean()
    assert found.scores.mean() > diverse.scores.mean()
    drawn = prior_only(IdentityGenerator(4), 16, 1000, seed=3)
    assert torch.equal(found.pool.latents.sort(0).values, drawn.pool.latents.sort(0).values)


@pytest.mark.parametrize("projection", ["none", "sphere"])
def test_the_projection_applies(projection):
    found = PriorTopK(16).reconstruct(context(latent=LatentSettings(projection=projection)))
    on_sphere = found.pool.latents.norm(dim=1).sub(2.0).abs().max() < 1e-5
    assert bool(on_sphere) == (projection == "sphere")


def test_bad_settings_are_named():
    with pytest.raises(InputError, match="top_k"):
        PriorTopK(top_k=0)
    with pytest.raises(InputError, match="batch_size"):
        PriorTopK(batch_size=0)
