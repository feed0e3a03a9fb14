import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from retrace_pl.envs import LatentCore, LatentSettings
from retrace_pl.envs.toys import IdentityGenerator, TargetScorer, toy_core
from retrace_pl.errors import AccessError, InputError, NotApplicable, RunError
from retrace_pl.models import DCGAN, SmallCNN
from retrace_pl.searchers import GradientAscentSearcher, RandomSearcher
from retrace_pl.searchers.gradient_ascent import score_gradient
from retrace_pl.traces import ModelPair, TraceScorer

TARGET = torch.tensor([1.0, -1.0] * 4)
SPHERE, PLAIN = LatentSettings(), LatentSettings(projection="none")


class SmoothTarget(TargetScorer):
    """The toy scorer, and what a gradient can climb; counts what either sees."""

    climbed = 0

    def differentiable_score(self, inputs, *, second_order=True):
        self.climbed += len(inputs)
        return torch.exp(-(inputs - self.target).square().mean(1))


def smooth_core(settings=SPHERE):
    return LatentCore(IdentityGenerator(8), SmoothTarget(TARGET), settings)


def small_core(access, settings=None, **scorer):
    torch.manual_seed(0)
    pair = ModelPair(SmallCNN(1, 5, width=4), SmallCNN(1, 5, width=4), access)
    generator = DCGAN((1, 16, 16), latent_dim=6, width=4)
    made = TraceScorer(pair, **scorer)
    with torch.no_grad():
        made.fit(generator.eval()(torch.randn(64, 6)))
    return LatentCore(generator, made, settings)


@pytest.mark.parametrize("budget", [50, 128, 1001])
def test_uses_exactly_the_budget_and_looks_at_nothing_else(budget):
    core = smooth_core()
    pool = GradientAscentSearcher(starts=16, steps=5).search(core, budget, seed=0)
    assert core.scorer.seen == core.scorer.climbed == core.queries == len(pool) == budget


def test_the_same_seed_gives_the_same_search():
    first, again, other = (GradientAscentSearcher().search(smooth_core(), 500, seed) for seed in (1, 1, 2))
    assert torch.equal(first.latents, again.latents)
    assert not torch.equal(first.latents, other.latents)


@pytest.mark.parametrize("settings", [SPHERE, PLAIN], ids=["sphere", "none"])
def test_every_start_reaches_the_target(settings):
    core = smooth_core(settings)
    pool = GradientAscentSearcher(starts=32, steps=64, learning_rate=0.2).search(core, 2048, seed=0)
    assert (pool.latents[-32:] - TARGET).abs().max() < 0.15
    assert pool.scores[-32:].mean() > pool.scores[:32].mean() + 0.5
    if settings is SPHERE:
        assert pool.latents.norm(dim=1).sub(8**0.5).abs().max() < 1e-4


def test_new_starts_follow_each_ascent():
    pool = GradientAscentSearcher(starts=10, steps=4).search(smooth_core(PLAIN), 80, seed=0)
    drawn = pool.latents.view(2, 4, 10, 8)[:, 0]
    assert not torch.allclose(drawn[0], drawn[1])
    assert drawn.std() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("second_order", [True, False])
def test_the_gradient_goes_through_generator_and_both_models(second_order):
    core = small_core("white")
    latents = core.settings.project(torch.randn(7, 6, generator=torch.Generator().manual_seed(1)))
    gradient = score_gradient(core, latents, second_order)
    assert gradient.shape == (7, 6)
    assert core.queries == 0
    radial = (gradient * latents).sum(1) / latents.norm(dim=1)
    assert radial.abs().max() < 1e-3 * gradient.norm(dim=1).max()  # along the sphere, not off it
    core.batch_size = 3
    assert torch.allclose(score_gradient(core, latents, second_order), gradient, atol=1e-6)


def test_it_beats_random_search_on_networks():
    random = RandomSearcher().search(small_core("white"), 192, seed=0)
    climbed = GradientAscentSearcher(starts=16, steps=12, learning_rate=0.2).search(small_core("white"), 192, seed=0)
    assert climbed.top_mean(64) > random.top_mean(64) + 0.02
    assert climbed.scores[-16:].mean() > climbed.scores[:16].mean() + 0.05


@pytest.mark.parametrize("access", ["black", "gray"])
def test_lower_access_is_refused_before_a_query_is_spent(access):
    core = small_core(access)
    with pytest.raises(AccessError, match="needs access=white"):
        GradientAscentSearcher().search(core, 100)
    assert core.queries == 0


def test_other_scorers_are_refused():
    with pytest.raises(InputError, match="TargetScorer has none"):
        GradientAscentSearcher().search(toy_core(), 100)


def test_a_generator_without_gradients_is_refused():
    class Frozen(nn.Module):
        latent_dim = 6

        def forward(self, latents):
            with torch.no_grad():
                return latents.mean(1).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)

    core = LatentCore(Frozen(), small_core("white").scorer)
    with pytest.raises(NotApplicable, match="requires_grad"):
        GradientAscentSearcher().search(core, 100)


def test_a_missing_second_derivative_names_the_way_out():
    class Attention(SmallCNN):
        def forward(self, images):
            rows = images.reshape(-1, 1, 16, 16)
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # its backward has no derivative
                return super().forward(scaled_dot_product_attention(rows, rows, rows))

    torch.manual_seed(0)
    pair = ModelPair(Attention(1, 5, width=4), SmallCNN(1, 5, width=4), "white")
    core = small_core("white")
    core.scorer = TraceScorer(pair)
    core.scorer.fit(core.generate(torch.randn(32, 6)))
    with pytest.raises(RunError, match="second_order to false"):
        GradientAscentSearcher().search(core, 100)
    pool = GradientAscentSearcher(16, 40, 0.2, second_order=False).search(core, 160)
    assert pool.scores[-16:].mean() > pool.scores[:16].mean()


@pytest.mark.parametrize(("name", "value"), [("starts", 0), ("steps", 1), ("learning_rate", 0.0)])
def test_bad_settings_are_named(name, value):
    with pytest.raises(InputError, match=f"searcher.{name}"):
        GradientAscentSearcher(**{name: value})
