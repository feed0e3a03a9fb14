"""RelaxLoss against its three cases, with gradients on the logits written out by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.unlearning import RelaxLoss

LABELS = torch.tensor([0, 1, 2, 1])
LOGITS = torch.tensor([[2.0, 0.1, -1.0], [0.0, 1.5, 0.3], [1.0, 0.2, -0.5], [-0.4, 0.9, 0.1]])  # the third is wrong


def loss_and_gradient(method, epoch):
    logits = LOGITS.clone().requires_grad_()
    loss = method.loss(logits, LABELS, epoch)
    loss.backward()
    return loss.detach(), logits.grad


def cross_entropy_gradient():
    return (LOGITS.softmax(1) - torch.eye(3)[LABELS]) / 4


@pytest.mark.parametrize("a", [0.2, 2.0])
def test_even_epochs_move_towards_the_level_from_both_sides(a):
    mean = functional.cross_entropy(LOGITS, LABELS)
    assert 0.2 < float(mean) < 2.0
    for epoch in (0, 4):
        loss, gradient = loss_and_gradient(RelaxLoss(a=a), epoch)
        torch.testing.assert_close(loss, (mean - a).abs())
        torch.testing.assert_close(gradient, cross_entropy_gradient() * (1 if float(mean) > a else -1))


def test_odd_epochs_above_the_level_are_plain_descent():
    loss, gradient = loss_and_gradient(RelaxLoss(a=0.2), 1)
    torch.testing.assert_close(loss, functional.cross_entropy(LOGITS, LABELS))
    torch.testing.assert_close(gradient, cross_entropy_gradient())


def test_odd_epochs_below_the_level_flatten_the_posteriors():
    """Ascent on every record; a wrong one is also drawn to its own probability and equal shares of the rest."""
    loss, gradient = loss_and_gradient(RelaxLoss(a=2.0), 3)
    p = LOGITS.softmax(1)
    own = float(p[2, 2])
    target = torch.tensor([(1 - own) / 2, (1 - own) / 2, own])
    expected = -cross_entropy_gradient()
    expected[2] += (p[2] - target) / 4
    torch.testing.assert_close(gradient, expected)
    soft = -(target * p[2].log()).sum()
    torch.testing.assert_close(loss, soft / 4 - functional.cross_entropy(LOGITS, LABELS))


def test_strength_scales_the_level_and_zero_is_fine_tuning():
    torch.testing.assert_close(
        loss_and_gradient(RelaxLoss(a=1.0, strength=2.0), 3)[0], loss_and_gradient(RelaxLoss(a=2.0), 3)[0]
    )
    for epoch in (0, 1):
        loss, gradient = loss_and_gradient(RelaxLoss(a=2.0, strength=0.0), epoch)
        torch.testing.assert_close(loss, functional.cross_entropy(LOGITS, LABELS))
        torch.testing.assert_close(gradient, cross_entropy_gradient())


def test_training_settles_at_the_level():
    torch.manual_seed(0)
    model, inputs = nn.Linear(6, 3), torch.eye(6)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    method = RelaxLoss(a=0.5, lr=0.05, momentum=0.0)
    optimizer = method.configure_optimizer(model.parameters())
    for step in range(400):
        method.unlearn_step(model, (inputs, labels), None, optimizer, step, step % 2)
    assert functional.cross_entropy(model(inputs), labels).item() == pytest.approx(0.5, abs=0.05)


def test_a_negative_level_is_refused_and_the_retain_stream_is_all_it_reads():
    with pytest.raises(InputError, match=r"RelaxLoss\.a"):
        RelaxLoss(a=-1)
    assert RelaxLoss().needs == {"retain"}
