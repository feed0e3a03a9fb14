import pytest
import torch

from retrace_pl.attacks import Attack, AttackContext, ReTrace, prior_only, select_instance
from retrace_pl.envs import LatentSettings
from retrace_pl.envs.toys import IdentityGenerator, TargetScorer, toy_core
from retrace_pl.errors import InputError, NotApplicable
from retrace_pl.searchers import CEMSearcher, RandomSearcher, SB3Searcher

TARGET = torch.tensor([1.0, -1.0, 1.0, -1.0])


def context(**settings):
    scorer = settings.pop("scorer", None) or TargetScorer(TARGET)
    return AttackContext(
        pair=None, scorer=scorer, generator=IdentityGenerator(4), **({"budget": 2048, "seed": 0} | settings)
    )


def mean_distance(latents):
    return torch.pdist(latents).mean()


@pytest.mark.parametrize("searcher", [RandomSearcher(), CEMSearcher(), SB3Searcher(num_envs=64, batch_size=64)])
def test_the_reconstruction_is_complete_and_within_the_budget(searcher):
    given = context(budget=1000)
    attack = ReTrace(searcher, top_k=20)
    assert isinstance(attack, Attack)
    found = attack.reconstruct(given)
    assert given.scorer.seen == found.queries == len(found.pool) == 1000
    assert found.inputs.shape == found.latents.shape == (20, 4)
    assert torch.equal(found.scores, TargetScorer(TARGET)(found.inputs).score)
    assert found.instance.shape == found.instance_latent.shape == (1, 4)
    assert found.instance_score == found.pool.best
    assert found.curve[-1][0] == 1000
    assert (found.policy is not None) == isinstance(searcher, SB3Searcher)


def test_top_selection_is_the_plain_best():
    found = ReTrace(RandomSearcher(), top_k=10, selection="top").reconstruct(context())
    assert torch.equal(found.scores, found.pool.scores.topk(10).values)


def test_diverse_selection_spreads_and_keeps_the_score():
    top = ReTrace(CEMSearcher(), top_k=16, selection="top").reconstruct(context())
    diverse = ReTrace(CEMSearcher(), top_k=16, tolerance=0.05).reconstruct(context())
    assert mean_distance(diverse.latents) > 1.5 * mean_distance(top.latents)
    assert diverse.scores.mean() > top.scores.mean() - 0.05


def test_refined_copies_of_one_candidate_do_not_crowd_the_distribution():
    attack = ReTrace(RandomSearcher(), top_k=16, refinement_steps=16, refinement_population=32)
    given = context(budget=2048)
    result = attack.reconstruct(given)
    searched = result.pool.latents[: 2048 - 16 * 32]
    assert all(bool((searched == latent).all(1).any()) for latent in result.latents)


def test_refinement_improves_the_instance_within_the_budget():
    plain = ReTrace(RandomSearcher()).reconstruct(context(latent=LatentSettings(projection="none")))
    given = context(latent=LatentSettings(projection="none"))
    refined = ReTrace(RandomSearcher(), refinement_steps=16, refinement_population=32).reconstruct(given)
    assert given.scorer.seen == refined.queries == 2048
    assert refined.instance_score > plain.instance_score
    assert refined.instance_score == pytest.approx(TargetScorer(TARGET)(refined.instance).score.item())
    assert refined.instance_score == refined.pool.best


def test_the_contexts_searcher_is_used_where_the_attack_has_none():
    found = ReTrace().reconstruct(context(searcher=CEMSearcher(), budget=512))
    assert found.queries == 512
    with pytest.raises(InputError, match="searcher: ReTrace needs a searcher"):
        ReTrace().reconstruct(context())


def test_the_same_seed_gives_the_same_reconstruction():
    first, again = (ReTrace(RandomSearcher(), refinement_steps=2).reconstruct(context(seed=5)) for _ in range(2))
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.instance, again.instance)


def test_among_equal_candidates_the_instance_is_the_most_typical():
    core = toy_core(latent_dim=2)
    ring = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.1, 0.0], [9.0, 9.0]])
    core.pool.add(ring, torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.5]))
    assert select_instance(core, core.pool, seed=0) == 4


def test_prior_only_asks_no_model():
    found = prior_only(IdentityGenerator(8), k=32, budget=4096, seed=1, latent=LatentSettings(projection="none"))
    assert found.queries == 0
    assert found.curve == []
    assert len(found.pool) == 4096
    assert found.inputs.shape == (32, 8)
    assert found.pool.latents.std() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(
        found.inputs, prior_only(IdentityGenerator(8), 32, 4096, 1, LatentSettings(projection="none")).inputs
    )
    assert not torch.equal(found.inputs, prior_only(IdentityGenerator(8), 32, 4096, seed=2).inputs)


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 0},
        {"selection": "best"},
        {"oversampling": 0},
        {"tolerance": -0.1},
        {"refinement_steps": -1},
        {"refinement_population": 0},
        {"refinement_std": 0.0},
    ],
)
def test_bad_settings_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        ReTrace(RandomSearcher(), **settings)


def test_refinement_must_leave_queries_for_the_search():
    with pytest.raises(NotApplicable, match="refinement takes 64 of 64 queries"):
        ReTrace(RandomSearcher(), refinement_steps=2).reconstruct(context(budget=64))
