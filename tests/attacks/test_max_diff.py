from itertools import pairwise

import pytest
import torch

from retrace_pl.attacks import Attack, AttackContext, MaxDiff, NotApplicable
from retrace_pl.envs.toys import IdentityGenerator, TargetScorer
from retrace_pl.errors import InputError

TARGET = torch.tensor([1.0, -1.0, 1.0, -1.0])


def context(n=300, **settings):
    public = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    given = {"pair": None, "generator": IdentityGenerator(4), "scorer": TargetScorer(TARGET), "public": public}
    return AttackContext(**(given | settings))


def test_the_best_public_inputs_come_back_in_order():
    given = context()
    found = MaxDiff(top_k=20).reconstruct(given)
    scores = TargetScorer(TARGET)(given.public).score
    assert isinstance(MaxDiff(), Attack)
    assert given.scorer.seen == found.queries == 300
    assert torch.equal(found.scores, scores.topk(20).values)
    assert torch.equal(found.inputs, given.public[scores.topk(20).indices])
    assert torch.equal(found.instance, found.inputs[:1])
    assert found.instance_score == float(scores.max())
    assert found.facts["rows"] == scores.topk(20).indices.tolist()
    assert found.facts["generator"] is None
    assert found.latents is found.instance_latent is found.pool is found.policy is None


def test_a_smaller_budget_takes_a_random_subset():
    first, again, other = (MaxDiff(8).reconstruct(context(budget=100, seed=seed)) for seed in (0, 0, 1))
    assert first.queries == first.facts["scored"] == 100
    assert first.facts["public_inputs"] == 300
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)
    rows = torch.tensor(MaxDiff(100).reconstruct(context(budget=100)).facts["rows"])
    assert rows.min() < 50
    assert rows.max() > 250
    assert len(rows.unique()) == 100


def test_the_curve_is_that_of_the_queries():
    curve = MaxDiff(8).reconstruct(context()).curve
    assert [point[0] for point in curve] == list(range(3, 301, 3))
    assert all(later[1] >= earlier[1] for earlier, later in pairwise(curve))
    scores = TargetScorer(TARGET)(context().public).score
    assert curve[-1][1:] == (pytest.approx(float(scores.max())), pytest.approx(float(scores.topk(64).values.mean())))
    assert len(MaxDiff(8).reconstruct(context(n=1)).curve) == 1


def test_equal_scores_are_ordered_at_random():
    class Constant(TargetScorer):
        def __call__(self, inputs):
            return type(super().__call__(inputs))(torch.ones(len(inputs)))

    first, other = (MaxDiff(8).reconstruct(context(scorer=Constant(TARGET), seed=seed)) for seed in (0, 1))
    assert first.facts["rows"] != other.facts["rows"]


def test_a_large_k_returns_what_was_scored():
    found = MaxDiff(top_k=64).reconstruct(context(n=5))
    assert found.inputs.shape == (5, 4)


@pytest.mark.parametrize("public", [None, torch.empty(0, 4)])
def test_without_public_inputs_it_does_not_apply(public):
    with pytest.raises(NotApplicable, match="there are none"):
        MaxDiff().reconstruct(context(public=public))


def test_bad_settings_are_named():
    with pytest.raises(InputError, match="top_k"):
        MaxDiff(top_k=0)
