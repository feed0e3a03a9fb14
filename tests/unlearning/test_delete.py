"""DELETE against its divergence, term by term."""

import pytest
import torch
from torch import nn

from retrace_pl.errors import RunError
from retrace_pl.unlearning import Delete

LR = 0.2


def setup(strength=1.0):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    inputs, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    method = Delete(lr=LR, momentum=0.0, strength=strength)
    method.prepare(model)
    with torch.no_grad():
        model.weight.add_(0.3 * torch.randn(3, 4))  # so that the teacher and the student differ
    return method, model, inputs, labels


def masked(logits, labels):
    """Probabilities of the other classes, divided by their sum."""
    p = logits.softmax(1) * (1 - torch.eye(3)[labels])
    return p / p.sum(1, keepdim=True)


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_the_step_descends_the_divergence_from_the_masked_teacher(strength):
    method, model, inputs, labels = setup(strength)
    teacher = nn.Linear(4, 3)
    torch.manual_seed(0)
    teacher.reset_parameters()
    target = masked(teacher(inputs).detach(), labels)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    p = (inputs @ weight.T + bias).softmax(1)
    others = target > 0
    divergence = torch.where(others, target * (target.clip(1e-30) / p).log(), 0.0).sum(1).mean()
    error = (p - target) / len(labels)
    optimizer = method.configure_optimizer(model.parameters())
    result = method.unlearn_step(model, None, (inputs, labels), optimizer, 0, 0)
    torch.testing.assert_close(result["loss"], divergence)
    torch.testing.assert_close(model.weight.detach(), weight - strength * LR * error.T @ inputs)
    torch.testing.assert_close(model.bias.detach(), bias - strength * LR * error.sum(0))


def test_many_steps_take_the_own_class_away_and_keep_the_ratios_of_the_others():
    torch.manual_seed(0)
    model = nn.Linear(5, 3)  # every record has weights of its own
    inputs, labels = torch.eye(5), torch.tensor([0, 1, 2, 1, 0])
    target = masked(model(inputs).detach(), labels)
    method = Delete()
    method.prepare(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for step in range(200):
        method.unlearn_step(model, None, (inputs, labels), optimizer, step, 0)
    torch.testing.assert_close(model(inputs).detach().softmax(1), target, atol=0.02, rtol=0)


def test_two_classes_leave_one_and_the_loss_stays_finite():
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    method = Delete(lr=LR)
    method.prepare(model)
    optimizer = method.configure_optimizer(model.parameters())
    result = method.unlearn_step(model, None, (torch.randn(3, 2), torch.tensor([0, 1, 0])), optimizer, 0, 0)
    assert bool(result["loss"].isfinite())
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def test_it_reads_forget_records_alone_and_needs_preparation():
    assert (Delete().needs, Delete().batch_norm, Delete().weighs_forget) == ({"forget"}, "freeze", True)
    _, model, inputs, labels = setup()
    with pytest.raises(RunError, match=r"call prepare\(model\)"):
        Delete().unlearn_step(model, None, (inputs, labels), None, 0, 0)
