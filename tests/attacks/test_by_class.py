"""Several deleted classes: each is searched for by itself."""

import pytest
import torch
from torch import nn

from retrace_pl.attacks import AttackContext, ReTrace
from retrace_pl.attacks.by_class import ByClass, interleave, scorers_by_class, shares
from retrace_pl.envs import LatentSettings
from retrace_pl.envs.toys import IdentityGenerator, toy_core
from retrace_pl.errors import NotApplicable
from retrace_pl.searchers import CEMSearcher, RandomSearcher
from retrace_pl.traces import DirectionalScorer, ModelPair


class Blobs(nn.Module):
    """Class i is likely near its centre, as its height says; class 2 is the rest."""

    def __init__(self, heights):
        super().__init__()
        self.register_buffer("centres", torch.tensor([[2.0, 0.0], [-2.0, 0.0]]))
        self.register_buffer("heights", torch.tensor(heights))

    def forward(self, x):
        near = self.heights * (-(x[:, None] - self.centres).square().sum(2)).exp()
        return torch.cat([near, 1 - near.sum(1, keepdim=True)], dim=1).clamp_min(1e-6).log()


@pytest.fixture
def context():
    """Two deleted classes; f+ is surer of the first, so that a search of one score ends there."""
    pair = ModelPair(Blobs([0.95, 0.6]), Blobs([0.0, 0.0]), "black")
    scorer = DirectionalScorer(pair, classes=[0, 1], scale="linear")
    latent = LatentSettings(tau=0.0, projection="none")
    return AttackContext(pair, scorer, IdentityGenerator(2), latent, budget=4096)


def classes(context, inputs):
    return torch.bincount(context.pair.outputs(inputs).original.argmax(dim=1), minlength=3).tolist()


def test_every_deleted_class_has_its_half_of_budget_and_reconstruction(context):
    found = ReTrace(CEMSearcher(population=128), top_k=32, selection="top").reconstruct(context)
    assert found.queries == len(found.pool) == 4096
    assert classes(context, found.inputs) == [16, 16, 0]
    assert classes(context, found.inputs[::2]) == [16, 0, 0]
    assert found.curve[-1][0] == 4096
    first, second = found.pool.scores[:2048], found.pool.scores[2048:]
    assert float(first.max()) == pytest.approx((1 + 0.95) / 2, abs=0.01)
    assert float(second.max()) == pytest.approx((1 + 0.6) / 2, abs=0.01)


def test_one_search_of_both_ends_at_the_easier_class(context):
    core = context.core()
    CEMSearcher(population=128).search(core, 4096, 0)
    assert classes(context, core.generate(core.pool.latents[core.pool.top_k(32)]))[1] == 0


def test_diverse_selection_keeps_to_the_shares(context):
    found = ReTrace(RandomSearcher(), top_k=9).reconstruct(context)
    assert classes(context, found.inputs) == [5, 4, 0]


def test_refinement_climbs_the_score_of_its_own_class(context):
    found = ReTrace(RandomSearcher(), top_k=4, refinement_steps=4, refinement_population=16).reconstruct(context)
    plain = ReTrace(RandomSearcher(), top_k=4).reconstruct(context)
    assert found.queries == 4096
    assert classes(context, found.instance) == [1, 0, 0]
    assert found.instance_score >= plain.instance_score - 0.02
    assert found.instance_score == pytest.approx(
        float(context.scorer.by_class()[0](found.instance).score), abs=1e-6
    )  # in the units of the first class


def test_the_order_of_inference_is_the_order_of_the_searches(context):
    turned = DirectionalScorer(context.pair, classes=[1, 0], scale="linear")
    search = ByClass(RandomSearcher(), scorers_by_class(turned))
    core = context.core()
    search.search(core, 100)
    assert search.starts == [0, 50]
    assert [part.classes for part in search.scorers] == [(1,), (0,)]
    assert [search.scorer_of(row).classes for row in (0, 49, 50, 99)] == [(1,), (1,), (0,), (0,)]
    rows = search.select(core.pool, 3, lambda pool, k: pool.top_k(k))
    best = [int(core.pool.scores[start : start + 50].argmax()) + start for start in (0, 50)]
    assert rows[:2].tolist() == best
    assert (rows < 50).tolist() == [True, False, True]


def test_a_single_class_and_other_scores_are_searched_as_ever(context):
    one = DirectionalScorer(context.pair, classes=[1])
    assert one.by_class() == (one,)
    toy = toy_core()
    assert scorers_by_class(toy.scorer) == (toy.scorer,)
    alone = toy_core()
    RandomSearcher().search(alone, 300, seed=3)
    ByClass(RandomSearcher(), [toy.scorer]).search(toy, 300, seed=3)
    assert torch.equal(alone.pool.latents, toy.pool.latents)


def test_a_budget_that_cannot_be_shared(context):
    context.budget = 1
    with pytest.raises(NotApplicable, match="cannot be shared by 2"):
        ReTrace(RandomSearcher(), top_k=4).reconstruct(context)


def test_shares_and_turns():
    assert shares(7, 3) == [3, 2, 2]
    assert shares(1, 2) == [1, 0]
    assert interleave([torch.tensor([10, 11, 12]), torch.tensor([20])]).tolist() == [10, 20, 11, 12]
