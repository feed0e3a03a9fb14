"""Negative preference optimisation against its definition, and what it says about gradient ascent."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from retrace_pl.errors import InputError, RunError
from retrace_pl.unlearning import NPO
from retrace_pl.unlearning.npo import negative_preference_losses

RETAIN = (torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1]))
FORGET = (torch.randn(4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 2, 1, 0]))


def linear(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(4, 3)


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_losses_follow_the_equation(beta):
    p, q = torch.tensor([[0.2, 0.5, 0.3]]), torch.tensor([[0.6, 0.1, 0.3]])
    losses = negative_preference_losses(p.log(), q.log(), torch.tensor([0]), beta)
    assert float(losses) == pytest.approx(2 / beta * math.log(1 + (0.2 / 0.6) ** beta), rel=1e-5)
    same = negative_preference_losses(p.log(), p.log(), torch.tensor([1]), beta)
    assert float(same) == pytest.approx(2 * math.log(2) / beta, rel=1e-5)


def test_the_pull_is_that_of_ascent_at_first_and_fades():
    reference = torch.tensor([[2.0, 0.0, 0.0]])
    labels = torch.tensor([0])

    def pulls(logits):
        at = logits.clone().requires_grad_()
        (own,) = torch.autograd.grad(negative_preference_losses(at, reference, labels, 1.0).sum(), at)
        (ascent,) = torch.autograd.grad(-functional.cross_entropy(at, labels), at)
        return own, ascent

    own, ascent = pulls(reference)
    torch.testing.assert_close(own, ascent)
    far = torch.tensor([[-8.0, 0.0, 0.0]])
    own, ascent = pulls(far)
    ratio = (far.softmax(1) / reference.softmax(1))[0, 0]
    torch.testing.assert_close(own, ascent * 2 * ratio / (1 + ratio))
    assert float(own.norm()) < 0.01 * float(ascent.norm())


@pytest.mark.parametrize(("strength", "gamma"), [(0.0, 1.0), (1.0, 0.0), (3.0, 0.5)])
def test_the_step_descends_both_terms(strength, gamma):
    model, twin = linear(), linear()
    method = NPO(lr=0.3, optimizer="sgd", momentum=0.0, beta=0.5, strength=strength, gamma=gamma)
    method.prepare(linear(1))
    result = method.unlearn_step(model, RETAIN, FORGET, method.configure_optimizer(model.parameters()), 0, 0)
    retain = functional.cross_entropy(twin(RETAIN[0]), RETAIN[1])
    losses = negative_preference_losses(twin(FORGET[0]), linear(1)(FORGET[0]), FORGET[1], 0.5)
    loss = gamma * retain + strength * losses.mean()
    loss.backward()
    torch.testing.assert_close(result["loss"], loss.detach())
    torch.testing.assert_close(model.weight.detach(), twin.weight.detach() - 0.3 * twin.weight.grad)


def test_settings_out_of_range_and_missing_preparation_are_named():
    with pytest.raises(InputError, match=r"NPO\.beta"):
        NPO(beta=0.0)
    with pytest.raises(InputError, match=r"NPO\.gamma"):
        NPO(gamma=-1.0)
    model = linear()
    with pytest.raises(RunError, match=r"call prepare\(model\)"):
        NPO().unlearn_step(model, RETAIN, FORGET, torch.optim.SGD(model.parameters(), 0.1), 0, 0)
