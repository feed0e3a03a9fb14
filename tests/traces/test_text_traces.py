"""A whole search over texts: generator, pair, score, pool, selection; nothing here knows that inputs are texts."""

import pytest
import torch

from retrace_pl.attacks import AttackContext, ReTrace, prior_only
from retrace_pl.attacks.selection import select_instance
from retrace_pl.envs import LatentCore, LatentSettings
from retrace_pl.errors import InputError
from retrace_pl.models import DistilBertClassifier, GPT2Generator
from retrace_pl.searchers import CEMSearcher, GradientAscentSearcher, RandomSearcher, SB3Searcher
from retrace_pl.traces import DirectionalScorer, ModelPair, TraceScorer, fit_weights, infer_classes

VOCABULARY, LENGTH = 40, 12


def seeded(build, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().eval()


def generator(seed=0):
    made = seeded(
        lambda: GPT2Generator((LENGTH, VOCABULARY), latent_dim=4, width=16, layers=1, heads=2, prefix=2), seed
    )
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(4.0 if weight.ndim > 1 else 1.0)  # so that it listens to z
    return made


def classifier(seed):
    return seeded(lambda: DistilBertClassifier(VOCABULARY, 3, width=16, layers=1, heads=2, window=LENGTH), seed)


@pytest.fixture
def public():
    made = generator(5)
    return made(made.sample_latents(40, torch.Generator().manual_seed(2)))


@pytest.fixture
def scorer(public):
    found = TraceScorer(ModelPair(classifier(0), classifier(1), "white"))
    found.fit(public)
    return found


def context(scorer, public, budget=96, searcher=None):
    return AttackContext(scorer.pair, scorer, generator(), LatentSettings(), public, budget, searcher=searcher)


@pytest.mark.parametrize("searcher", [RandomSearcher(batch_size=32), CEMSearcher(population=24)], ids=lambda s: s.name)
def test_a_search_finds_texts_whose_score_is_what_the_pool_says(scorer, public, searcher):
    found = ReTrace(searcher, top_k=6, refinement_steps=2, refinement_population=8).reconstruct(context(scorer, public))
    assert found.queries == 96
    assert found.inputs.shape == (6, LENGTH)
    assert found.inputs.dtype == found.instance.dtype == torch.int64
    assert torch.equal(generator()(found.latents), found.inputs), "pools regenerate the same texts"
    torch.testing.assert_close(scorer(found.inputs).score, found.scores, rtol=1e-4, atol=1e-5)
    assert found.instance_score >= float(found.scores.max()) - 1e-6


def test_ppo_learns_on_texts(scorer, public):
    searcher = SB3Searcher(num_envs=16, n_steps=2, n_epochs=1)
    found = ReTrace(searcher, top_k=4).reconstruct(context(scorer, public, budget=64))
    assert found.queries == 64
    assert found.inputs.dtype == torch.int64


def test_selections_go_by_the_words_of_a_text(scorer):
    core = LatentCore(generator(), scorer, LatentSettings(), seed=0)
    latents = core.prior(30)
    core.evaluate(latents)
    points = core.points(latents)
    assert points.is_floating_point()
    torch.testing.assert_close(points.norm(dim=1), torch.ones(30))
    rows = core.pool.diverse_top_k(5, 0, features=core.points, tolerance=1.0)
    assert len(core.generate(core.pool.latents[rows]).unique(dim=0)) == 5
    core.pool.scores.fill_(1.0)
    row = select_instance(core, core.pool, seed=0)
    centre = points.mean(0)
    assert row == int((points - centre).square().sum(1).argmin())


def test_the_prior_alone_gives_texts():
    drawn = prior_only(generator(), 5, 64, 0, LatentSettings())
    assert drawn.inputs.shape == (5, LENGTH)
    assert drawn.inputs.dtype == torch.int64


def test_gradient_ascent_says_that_texts_have_no_gradient(scorer, public):
    with pytest.raises(InputError, match="they are discrete"):
        ReTrace(GradientAscentSearcher(starts=2, steps=3), top_k=2).reconstruct(context(scorer, public))


def test_class_inference_directional_scores_and_fitted_weights_take_texts(public):
    pair = ModelPair(classifier(0), classifier(1), "white")
    assert len(infer_classes(pair, public).counts) == 3
    directional = DirectionalScorer(pair, classes=[1])
    scores = directional(public)
    assert scores.score.shape == (40,)
    assert bool(scores.score.isfinite().all())
    fitted = TraceScorer(pair)
    fitted.fit(public)
    order = fitted.deltas(public).prediction.argsort(descending=True)
    weights = fit_weights(fitted, public[order[:20]], public[order[20:]])
    assert set(weights.coefficients) == {"prediction", "loss", "gradient"}
