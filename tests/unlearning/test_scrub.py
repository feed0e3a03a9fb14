"""SCRUB: both steps against their equations, and the form of the benchmark."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from retrace_pl.errors import InputError, RunError
from retrace_pl.unlearning import SCRUB

LR, T = 0.05, 4.0


def batch(seed, n):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


RETAIN, FORGET = batch(1, 6), batch(2, 4)


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(4, 3)


def kd_gradient(student, teacher, inputs):
    """Of the batch mean of T^2 KL(softmax(teacher / T) || softmax(student / T)) by the weight: T (p - q)^T x / n."""
    with torch.no_grad():
        error = (student(inputs) / T).softmax(1) - (teacher(inputs) / T).softmax(1)
    return T * error.T @ inputs / len(inputs)


def ce_gradient(student, inputs, labels):
    with torch.no_grad():
        error = student(inputs).softmax(1) - torch.eye(3)[labels]
    return error.T @ inputs / len(inputs)


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_max_step_in_the_first_epochs_and_a_min_step_in_all(strength, epoch):
    """The weights of both steps written out; the bias is frozen at 0, so that the weight is all that moves."""
    teacher, student = (nn.Linear(4, 3, bias=False) for _ in range(2))
    method = SCRUB(lr=LR, momentum=0, strength=strength, alpha=0.3, gamma=0.7)
    method.prepare(teacher)
    expected = nn.Linear(4, 3, bias=False)
    expected.load_state_dict(student.state_dict())
    if epoch < 2:
        with torch.no_grad():
            expected.weight += LR * strength * kd_gradient(expected, teacher, FORGET[0])
    descent = 0.7 * ce_gradient(expected, *RETAIN) + 0.3 * kd_gradient(expected, teacher, RETAIN[0])
    with torch.no_grad():
        expected.weight -= LR * descent
    result = method.unlearn_step(student, RETAIN, FORGET, method.configure_optimizer(student.parameters()), 0, epoch)
    torch.testing.assert_close(student.weight, expected.weight)
    assert ("forget_kl" in result) is (epoch < 2 and strength > 0)
    torch.testing.assert_close(result["loss"], 0.7 * result["retain_loss"] + 0.3 * result["retain_kl"])


def test_max_steps_can_be_as_rare_as_the_records_to_forget():
    student = linear()
    method = SCRUB(lr=LR, max_every=3)
    method.prepare(linear(1))
    optimizer = method.configure_optimizer(student.parameters())
    results = [method.unlearn_step(student, RETAIN, FORGET, optimizer, step, 0) for step in range(7)]
    assert ["forget_kl" in result for result in results] == [True, False, False, True, False, False, True]


def test_strength_zero_takes_one_optimiser_step_only():
    """A max step with a gradient of zero would still move the weights by momentum."""
    steps = []
    model = linear()
    method = SCRUB(strength=0.0)
    method.prepare(model)
    optimizer = method.configure_optimizer(model.parameters())
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    method.unlearn_step(model, RETAIN, FORGET, optimizer, 0, 0)
    assert len(steps) == 1


def test_the_form_of_the_benchmark():
    """T 4, msteps 2, alpha .01, gamma .99 under Adam: -T^2 KL(forget), then .99 CE + .01 T^2 KL(retain)."""
    teacher, student, twin = linear(0), linear(1), linear(1)
    method = SCRUB(alpha=0.01, optimizer="adam", lr=1e-3)
    method.prepare(teacher)
    optimizer, own = method.configure_optimizer(student.parameters()), torch.optim.Adam(twin.parameters(), lr=1e-3)

    def kd(inputs):
        target = (teacher(inputs).detach() / 4).softmax(1)
        return 16 * functional.kl_div((twin(inputs) / 4).log_softmax(1), target, reduction="batchmean")

    for epoch in range(4):
        method.unlearn_step(student, RETAIN, FORGET, optimizer, epoch, epoch)
        if epoch < 2:
            own.zero_grad()
            (-kd(FORGET[0])).backward()
            own.step()
        own.zero_grad()
        (0.99 * functional.cross_entropy(twin(RETAIN[0]), RETAIN[1]) + 0.01 * kd(RETAIN[0])).backward()
        own.step()
    torch.testing.assert_close(student.weight, twin.weight)
    torch.testing.assert_close(student.bias, twin.bias)


def test_the_teacher_is_the_original_model():
    model = linear()
    method = SCRUB(lr=0.5)
    method.prepare(model)
    before = model.weight.detach().clone()
    method.unlearn_step(model, RETAIN, FORGET, method.configure_optimizer(model.parameters()), 0, 0)
    assert not torch.equal(model.weight, before)
    assert torch.equal(method.teacher.weight, before)
    assert method.state_dict() == {}, "prepare makes the teacher again"


def test_a_step_without_a_teacher_is_named():
    model = linear()
    with pytest.raises(RunError, match="SCRUB has no teacher yet"):
        SCRUB().unlearn_step(model, RETAIN, FORGET, torch.optim.SGD(model.parameters(), lr=0.1), 0, 0)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_every": 0}, "max_every"),
        ({"temperature": 0}, "temperature"),
        ({"alpha": -1}, "alpha"),
        ({"gamma": -1}, "gamma"),
        ({"msteps": -1}, "msteps"),
    ],
)
def test_settings_out_of_range_are_named(settings, named):
    with pytest.raises(InputError, match=f"SCRUB.{named}"):
        SCRUB(**settings)
