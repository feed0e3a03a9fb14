import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from retrace_pl.attacks import NotApplicable
from retrace_pl.attacks.gradient_matching import (
    GradientMatcher,
    learning_rate_drops,
    match_gradients,
    plan_descents,
    total_variation,
)
from retrace_pl.errors import InputError
from retrace_pl.models import ClassifierBehaviour

BOX = (0.0, 1.0)


def random_direction(model, seed=0):
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=random) for name, value in model.named_parameters()}


def test_the_cosine_is_one_over_all_layers_together(digits, digits_mlp, gradients):
    inputs, labels = digits[0][300:303], digits[1][300:303]
    direction = random_direction(digits_mlp)
    found = GradientMatcher(digits_mlp, ClassifierBehaviour(), direction).cosine(inputs, labels).detach()
    gradient = gradients(digits_mlp, inputs, labels)
    product = sum(float((gradient[name] * direction[name]).sum()) for name in direction)
    lengths = [math.sqrt(sum(float(value.square().sum()) for value in one.values())) for one in (gradient, direction)]
    assert float(found) == pytest.approx(product / (lengths[0] * lengths[1]), abs=1e-6)
    one_by_one = [
        float((gradient[n] * direction[n]).sum() / gradient[n].norm() / direction[n].norm()) for n in gradient
    ]
    assert abs(float(found) - sum(one_by_one) / len(one_by_one)) > 1e-3


def test_a_records_own_gradient_has_cosine_one(digits, digits_cnn, gradients):
    inputs, labels = digits[0][:2], digits[1][:2]
    direction = {name: 3 * value for name, value in gradients(digits_cnn, inputs, labels).items()}
    matcher = GradientMatcher(digits_cnn, ClassifierBehaviour(), direction)
    assert matcher.cosine(inputs, labels).item() == pytest.approx(1.0, abs=1e-5)
    other = matcher.cosine(digits[0][5:7], digits[1][5:7]).item()
    assert other < 0.9


def test_only_parameters_with_a_direction_are_compared(digits, digits_mlp, gradients):
    inputs, labels = digits[0][300:301], digits[1][300:301]
    own = gradients(digits_mlp, inputs, labels)
    head = {name: own[name] for name in ("3.weight", "3.bias")}
    matcher = GradientMatcher(digits_mlp, ClassifierBehaviour(), head)
    assert matcher.size == 32 * 10 + 10
    assert matcher.cosine(inputs, labels).item() == pytest.approx(1.0, abs=1e-5)


def test_the_original_model_is_left_alone(digits, digits_mlp):
    before = copy.deepcopy(digits_mlp.state_dict())
    matcher = GradientMatcher(digits_mlp, ClassifierBehaviour(), random_direction(digits_mlp))
    match_gradients(matcher, torch.rand(1, 1, 8, 8), torch.tensor([3]), steps=8, lr=0.04, tv_weight=0.0, box=BOX)
    assert not any(value.requires_grad or value.grad is not None for value in digits_mlp.parameters())
    assert all(torch.equal(value, before[name]) for name, value in digits_mlp.state_dict().items())


def test_half_precision_models_are_matched_in_single_precision(digits, digits_mlp):
    half = copy.deepcopy(digits_mlp).half()
    direction = random_direction(digits_mlp)
    found = GradientMatcher(half, ClassifierBehaviour(), direction)
    assert found.dtype == torch.float32
    full = GradientMatcher(digits_mlp, ClassifierBehaviour(), direction)
    args = digits[0][300:301], digits[1][300:301]
    assert found.cosine(*args).item() == pytest.approx(full.cosine(*args).item(), abs=0.01)


def test_total_variation_by_hand():
    image = torch.tensor([[[[0.0, 1.0, 1.0], [0.5, 0.5, 0.0]]]])
    down = (0.5 + 0.5 + 1.0) / 3
    across = (1.0 + 0.0 + 0.0 + 0.5) / 4
    assert float(total_variation(image)) == pytest.approx(down + across)
    assert float(total_variation(torch.rand(2, 3, 1, 1))) == 0
    assert float(total_variation(torch.rand(2, 5))) == 0


def test_the_learning_rate_halves_three_times():
    assert learning_rate_drops(8) == [3, 5, 7]
    assert learning_rate_drops(10_000) == [3750, 6250, 8750]


def test_signed_steps_follow_the_schedule_and_stay_in_the_box(digits_mlp):
    """One pixel that is always pushed the same way moves by the learning rate of the step."""
    seen = []

    class Recorder(GradientMatcher):
        def cosine(self, inputs, labels):
            seen.append(float(inputs.detach()[0, 0]))
            return 1e-6 * inputs.sum()  # the sign makes the scale of the gradient irrelevant

    matcher = Recorder(digits_mlp, ClassifierBehaviour(), random_direction(digits_mlp))
    match_gradients(matcher, torch.zeros(1, 1), torch.tensor([0]), steps=17, lr=0.04, tv_weight=1.0, box=None)
    moves = torch.tensor(seen).diff()
    expected = torch.tensor([0.04] * 6 + [0.02] * 4 + [0.01] * 4 + [0.005] * 2)
    torch.testing.assert_close(moves, expected, atol=1e-5, rtol=1e-3)
    assert len(seen) == 17
    seen.clear()
    found = match_gradients(
        matcher, torch.full((1, 1), 9.0), torch.tensor([0]), steps=9, lr=0.4, tv_weight=0.0, box=BOX
    )
    assert all(0 <= value <= 1 for value in seen)
    assert float(found.inputs) == 1


def test_a_label_that_is_no_class_is_named(digits, digits_mlp):
    matcher = GradientMatcher(digits_mlp, ClassifierBehaviour(), random_direction(digits_mlp))
    with pytest.raises(InputError, match=r"uia\.label: 10 is no class of a model with 10 outputs"):
        matcher.cosine(digits[0][:1], torch.tensor([10]))


@pytest.mark.parametrize(
    ("budget", "steps", "restarts", "images", "planned"),
    [
        (2500, 500, 5, 1, (500, 5)),
        (2499, 500, 5, 1, (500, 4)),
        (20480, 10_000, 5, 1, (10_000, 2)),
        (20480, 10_000, 5, 3, (6826, 1)),
        (900, 500, 5, 2, (450, 1)),
        (900, 500, 1, 2, (450, 1)),
    ],
)
def test_restarts_are_cut_before_steps(budget, steps, restarts, images, planned):
    plan = plan_descents(budget, steps, restarts, images)
    assert (plan.steps, plan.restarts) == planned
    assert plan.steps * plan.restarts * images <= budget
    assert (plan.reduction is None) == ((plan.steps, plan.restarts) == (steps, restarts))
    if plan.reduction:
        assert ("restarts" in plan.reduction) == (plan.restarts < restarts)
        assert ("steps" in plan.reduction) == (plan.steps < steps)


def test_a_budget_for_fewer_than_eight_steps_is_refused():
    assert plan_descents(16, 500, 5, 2).steps == 8
    with pytest.raises(NotApplicable, match="2 joint images needs at least 16 queries"):
        plan_descents(15, 500, 5, 2)


def test_a_model_without_a_second_derivative_says_so(digits):
    class Attention(nn.Linear):
        def forward(self, images):
            rows = super().forward(images.flatten(1))[:, None, None]
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # its backward has no derivative
                return scaled_dot_product_attention(rows, rows, rows).flatten(1)

    model = Attention(64, 10)
    matcher = GradientMatcher(model, ClassifierBehaviour(), random_direction(model))
    with pytest.raises(NotApplicable, match=r"second derivatives: derivative for .* is not implemented"):
        match_gradients(matcher, digits[0][:1], digits[1][:1], steps=8, lr=0.1, tv_weight=0.0, box=BOX)
