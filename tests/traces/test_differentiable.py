import pytest
import torch
from torch import nn

from retrace_pl.errors import AccessError, InputError, RunError
from retrace_pl.traces import (
    BatchMinMax,
    DifferentiableScorer,
    FixedQuantile,
    ModelPair,
    Rank,
    TraceScorer,
    differentiable_response,
)


def white_scorer(models, inputs, **settings):
    scorer = TraceScorer(ModelPair(*models, "white"), **settings)
    scorer.fit(inputs)
    return scorer


@pytest.fixture
def double_models(mlp):
    return mlp(1).double(), mlp(2).double()


def test_the_response_is_that_of_the_pair(models, inputs):
    pair = ModelPair(*models, "white")
    plain = pair.respond(inputs)
    response = differentiable_response(pair, inputs.requires_grad_(), ("prediction", "loss", "gradient"))
    assert torch.equal(response.labels, plain.labels)
    for name in ("probabilities", "losses", "gradients"):
        for value, expected in zip(getattr(response, name), getattr(plain, name), strict=True):
            assert value.requires_grad
            assert torch.allclose(value, expected, atol=1e-6)


@pytest.mark.parametrize("tail", ["open", "clip"])
@pytest.mark.parametrize("sign", ["positive", "paper_literal"])
@pytest.mark.parametrize("signal", ["prediction", "loss", "gradient", "all"])
def test_the_gradient_is_that_of_the_score(double_models, inputs, signal, sign, tail):
    # High quantile 1: no public input lies above it, so the clipped score is not flat there either.
    names = ("prediction", "loss", "gradient")
    weights = {name: float(signal in (name, "all")) for name in names}
    public = inputs.double()
    scorer = white_scorer(
        double_models, public, weights=weights, normaliser=FixedQuantile(0.0, 1.0, tail=tail), sign=sign
    )
    at = public[:5].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(scorer.differentiable_score(at).sum(), at)
    reference = white_scorer(double_models, public, weights=weights, normaliser=FixedQuantile(0.0, 1.0), sign=sign)
    direction = torch.randn(at.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    step = 1e-5
    with torch.no_grad():
        difference = reference(at + step * direction).score - reference(at - step * direction).score
    slope = (gradient * direction).flatten(1).sum(1)
    assert slope.abs().min() > 1e-6
    assert torch.allclose(slope, difference / (2 * step), rtol=1e-4, atol=1e-7)


def test_a_gradient_reaches_what_the_inputs_were_computed_from(models, inputs):
    scorer = white_scorer(models, inputs)
    assert isinstance(scorer, DifferentiableScorer)
    scale = torch.ones(37, 1, 1, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(scorer.differentiable_score(inputs * scale).sum(), scale)
    assert gradient.flatten().abs().min() > 0
    assert all(not parameter.requires_grad for model in models for parameter in model.parameters())


@pytest.mark.parametrize("normaliser", [BatchMinMax(), Rank()])
def test_normalisers_within_the_batch_are_climbed_by_the_raw_differences(models, inputs, normaliser):
    scorer = white_scorer(models, inputs, normaliser=normaliser, weights={"loss": 0, "gradient": 0})
    at = inputs.clone().requires_grad_()
    smooth = scorer.differentiable_score(at)
    assert torch.equal(smooth.argsort(), scorer(inputs).score.argsort())
    (gradient,) = torch.autograd.grad(smooth.sum(), at)
    with torch.no_grad():
        moved = scorer.deltas(inputs + 1e-3 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None])
    assert bool((moved.prediction > scorer.deltas(inputs).prediction).all())


def test_the_smooth_quantile_scale_is_flat_nowhere():
    normaliser = FixedQuantile(0.25, 0.75, tail="clip")
    normaliser.fit({"loss": torch.linspace(0, 4, 5)})
    delta = torch.tensor([-3.0, 0.0, 1.0, 2.0, 3.0, 30.0], requires_grad=True)
    smooth = normaliser.smooth("loss", delta)
    assert smooth.tolist() == pytest.approx([-2.0, -0.5, 0.0, 1 / 3, 0.5, 14.5 / 15.5])
    assert torch.autograd.grad(smooth.sum(), delta)[0].min() > 0
    normaliser.fit({"loss": torch.zeros(5)})
    assert normaliser.smooth("loss", delta).eq(0).all()


def test_the_gradient_signal_can_be_left_out(models, inputs):
    scorer = white_scorer(models, inputs)
    first_order = scorer.differentiable_score(inputs.clone().requires_grad_(), second_order=False)
    both = white_scorer(models, inputs, weights={"gradient": 0})
    expected = both.differentiable_score(inputs.clone().requires_grad_()) * 2 / 3
    assert torch.allclose(first_order, expected)
    alone = white_scorer(models, inputs, weights={"prediction": 0, "loss": 0})
    with pytest.raises(InputError, match="gradient signal alone"):
        alone.differentiable_score(inputs.clone().requires_grad_(), second_order=False)


def test_identical_models_give_no_direction_and_no_nan(models, inputs):
    scorer = white_scorer((models[0], models[0]), inputs, normaliser=BatchMinMax())
    at = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(scorer.differentiable_score(at).sum(), at)
    assert gradient.eq(0).all()


@pytest.mark.parametrize("access", ["black", "gray"])
def test_lower_access_is_refused(models, inputs, access):
    scorer = TraceScorer(ModelPair(*models, access))
    scorer.fit(inputs)
    with pytest.raises(AccessError, match="needs access=white"):
        scorer.differentiable_score(inputs.requires_grad_())


def test_inputs_without_a_gradient_are_refused(models, inputs):
    with pytest.raises(InputError, match="requires_grad"):
        white_scorer(models, inputs).differentiable_score(inputs)


def test_an_unfitted_scorer_is_refused(models, inputs):
    with pytest.raises(RunError, match="fit"):
        TraceScorer(ModelPair(*models, "white")).differentiable_score(inputs.requires_grad_())


def test_a_model_that_cuts_the_history_is_named(models, inputs):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = models[1]

        def forward(self, x):
            return self.inner(x.detach())

    pair = ModelPair(models[0], Cut(), "white")
    with pytest.raises(RunError, match="unlearned model have no gradient"):
        differentiable_response(pair, inputs.requires_grad_(), ("prediction",))
