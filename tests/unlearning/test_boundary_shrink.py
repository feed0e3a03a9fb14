"""Boundary Shrink against its rule: the label on the other side of the nearest boundary, then plain descent on it."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from retrace_pl.errors import InputError, RunError
from retrace_pl.unlearning import BoundaryShrink

LR = 0.2


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 4))


def images(seed=1, n=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 2, 3, generator=generator), torch.randint(4, (n,), generator=generator)


def gradient_sign(network, inputs, labels):
    """For a linear model: the sign of (p - onehot)^T W, in the images' shape."""
    weight, bias = network[1].weight.detach(), network[1].bias.detach()
    error = (inputs.flatten(1) @ weight.T + bias).softmax(1) - torch.eye(4)[labels]
    return (error @ weight).sign().view_as(inputs)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.7])
def test_the_new_label_is_the_best_other_class_after_one_clipped_step(epsilon):
    network, (inputs, labels) = model(), images()
    method = BoundaryShrink(epsilon=epsilon)
    method.prepare(network)
    moved = (inputs + epsilon * gradient_sign(network, inputs, labels)).clip(0, 1)
    logits = network(moved).detach()
    logits[torch.arange(5), labels] = -1e9
    assert torch.equal(method.nearest_labels(inputs, labels), logits.argmax(1))


def test_a_step_over_the_boundary_finds_the_class_that_it_leads_to():
    """Class 1 is the runner-up of the image; across the boundary that the gradient leads to lies class 2."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[5.0, 0.0], [0.0, 1.0], [-5.0, 0.0]]))
        network[1].bias.copy_(torch.tensor([0.0, 0.0, 2.75]))
    image, label = torch.tensor([[[[0.6, 0.5]]]]), torch.tensor([0])
    near, far = BoundaryShrink(epsilon=0.0), BoundaryShrink(epsilon=0.3)
    near.prepare(network)
    far.prepare(network)
    assert near.nearest_labels(image, label).item() == 1
    assert far.nearest_labels(image, label).item() == 2


def test_pixels_outside_the_unit_interval_are_never_asked_about():
    seen = []

    class Watched(nn.Module):
        def forward(self, inputs):
            seen.append(inputs.detach())
            return torch.cat((inputs.flatten(1), -inputs.flatten(1)), dim=1)

    method = BoundaryShrink(epsilon=0.5)
    method.prepare(Watched())
    method.nearest_labels(torch.tensor([[0.0, 0.1], [0.9, 1.0]]), torch.tensor([0, 3]))
    assert min(float(x.min()) for x in seen) == 0.0
    assert max(float(x.max()) for x in seen) == 1.0


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_a_step_descends_the_loss_on_the_new_labels(strength):
    network, (inputs, labels) = model(), images()
    method = BoundaryShrink(lr=LR, momentum=0.0, strength=strength)
    method.prepare(network)
    weight, bias = network[1].weight.detach().clone(), network[1].bias.detach().clone()
    nearest = method.nearest_labels(inputs, labels)
    flat = inputs.flatten(1)
    logits = flat @ weight.T + bias
    error = (logits.softmax(1) - torch.eye(4)[nearest]) / 5
    result = method.unlearn_step(
        network, None, (inputs, labels), method.configure_optimizer(network.parameters()), 0, 0
    )
    torch.testing.assert_close(network[1].weight.detach(), weight - strength * LR * error.T @ flat)
    torch.testing.assert_close(network[1].bias.detach(), bias - strength * LR * error.sum(0))
    torch.testing.assert_close(result["loss"], functional.cross_entropy(logits, nearest))


def test_labels_come_from_the_original_model_however_far_the_model_has_moved():
    network, batch = model(), images()
    method = BoundaryShrink()
    method.prepare(network)
    before = method.nearest_labels(*batch)
    with torch.no_grad():
        network[1].weight.mul_(-3)
    assert torch.equal(method.nearest_labels(*batch), before)


def test_settings_out_of_range_and_missing_preparation_are_named():
    for epsilon in (-0.1, 1.5):
        with pytest.raises(InputError, match=r"BoundaryShrink\.epsilon"):
            BoundaryShrink(epsilon=epsilon)
    with pytest.raises(RunError, match=r"call prepare\(model\)"):
        BoundaryShrink().nearest_labels(*images())
    method = BoundaryShrink()
    method.prepare(nn.Linear(3, 2))
    with pytest.raises(InputError, match="floating-point tensor"):
        method.nearest_labels(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))


def test_it_reads_forget_records_alone_and_keeps_the_statistics():
    method = BoundaryShrink()
    assert (method.needs, method.batch_norm, method.weighs_forget) == ({"forget"}, "freeze", True)
