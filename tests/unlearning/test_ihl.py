"""The inverted hinge against its definition, and its bounds."""

import math

import pytest
import torch
from torch import nn

from retrace_pl.unlearning import InvertedHinge
from retrace_pl.unlearning.ihl import inverted_hinge


def test_the_hinge_is_one_plus_the_lead_of_the_true_class():
    logits = torch.tensor([[0.0, math.log(2.0), math.log(5.0)]]).repeat(3, 1)  # probabilities 1/8, 2/8, 5/8
    expected = torch.tensor([1 + 1 / 8 - 5 / 8, 1 + 2 / 8 - 5 / 8, 1 + 5 / 8 - 2 / 8])
    torch.testing.assert_close(inverted_hinge(logits, torch.arange(3)), expected)


def test_the_hinge_is_bounded_and_vanishes_where_the_model_is_certain():
    logits = torch.tensor([[100.0, 0.0, 0.0], [0.0, 100.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    hinge = inverted_hinge(logits, torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(hinge, torch.tensor([2.0, 0.0, 1.0]))
    hinge.sum().backward()
    assert float(logits.grad[:2].abs().max()) < 1e-6
    assert float(logits.grad[2].abs().max()) > 0.1


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_the_step_descends_cross_entropy_and_hinge(strength):
    """d p_k / d z_j = p_k (1[k = j] - p_j), written out for the true class and the runner-up."""
    torch.manual_seed(0)
    model, lr = nn.Linear(4, 3), 0.3
    retain = (torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    forget = (torch.randn(4, 4), torch.tensor([2, 2, 1, 0]))
    weight = model.weight.detach().clone()
    with torch.no_grad():
        error = (model(retain[0]).softmax(1) - torch.eye(3)[retain[1]]) / 5
        p = model(forget[0]).softmax(1)
        signal = torch.zeros_like(p)
        hinges = []
        for i, y in enumerate(forget[1].tolist()):
            v = max((k for k in range(3) if k != y), key=lambda k, row=p[i]: float(row[k]))
            signal[i] = p[i, y] * (torch.eye(3)[y] - p[i]) - p[i, v] * (torch.eye(3)[v] - p[i])
            hinges.append(1 + p[i, y] - p[i, v])
        gradient = error.T @ retain[0] + strength * signal.T @ forget[0] / 4
    method = InvertedHinge(lr=lr, optimizer="sgd", strength=strength)
    result = method.unlearn_step(model, retain, forget, method.configure_optimizer(model.parameters()), 0, 0)
    torch.testing.assert_close(model.weight.detach(), weight - lr * gradient)
    torch.testing.assert_close(result["forget_hinge"], torch.stack(hinges).mean())
    torch.testing.assert_close(result["loss"], result["retain_loss"] + strength * result["forget_hinge"])
