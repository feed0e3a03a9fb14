"""BadTeacher: the two losses, the random teacher and its statistics."""

import copy

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError, RunError
from retrace_pl.models import SmallCNN
from retrace_pl.unlearning import BadTeacher

LR = 0.3


def batch(seed, n):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("settings", "retain_weight", "forget_weight"),
    [
        ({}, 1.0, 1.0),
        ({"strength": 2.0}, 1.0, 2.0),
        ({"strength": 0.0}, 1.0, 0.0),
        ({"form": "mls_bench"}, 6 / 10, 4 / 10),
        ({"form": "mls_bench", "strength": 0.5}, 6 / 10, 2 / 10),
    ],
)
def test_the_step_descends_the_divergence_from_both_teachers(settings, retain_weight, forget_weight):
    """grad of KL(q || softmax(z)) by z is p - q; the student has moved away from its teacher beforehand."""
    original, student, retain, forget = linear(), nn.Linear(4, 3), batch(1, 6), batch(2, 4)
    method = BadTeacher(lr=LR, optimizer="sgd", **settings)
    method.prepare(original)
    method.edit(original, (), ())
    weight = student.weight.detach().clone()
    with torch.no_grad():
        retain_error = (student(retain[0]).softmax(1) - original(retain[0]).softmax(1)) / 6
        forget_error = (student(forget[0]).softmax(1) - method.incompetent(forget[0]).softmax(1)) / 4
        gradient = retain_weight * retain_error.T @ retain[0] + forget_weight * forget_error.T @ forget[0]
    result = method.unlearn_step(student, retain, forget, method.configure_optimizer(student.parameters()), 0, 0)
    torch.testing.assert_close(student.weight.detach(), weight - LR * gradient)
    expected = retain_weight * result["retain_kl"] + forget_weight * result["forget_kl"]
    torch.testing.assert_close(result["loss"], expected)


def test_the_form_of_the_benchmark_is_one_batch_mean_over_the_concatenated_batch():
    original, student, retain, forget = linear(), nn.Linear(4, 3), batch(1, 6), batch(2, 4)
    method = BadTeacher(form="mls_bench")
    method.prepare(original)
    with torch.no_grad():
        targets = torch.cat([original(retain[0]), method.incompetent(forget[0])]).softmax(1)
        predictions = student(torch.cat([retain[0], forget[0]])).log_softmax(1)
    expected = nn.functional.kl_div(predictions, targets, reduction="batchmean")
    result = method.unlearn_step(student, retain, forget, method.configure_optimizer(student.parameters()), 0, 0)
    torch.testing.assert_close(result["loss"], expected)


def images(seed, n=8, size=16):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(n, 1, size, size, generator=generator), torch.arange(n) % 3) for _ in range(3)]


def trained_looking(model):
    """Running statistics as after training with small activations: far from those of fresh weights."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.fill_(0.1)
            layer.running_var.fill_(1e-6)
    return model.eval()


def test_inherited_statistics_blow_the_random_teacher_up_and_estimated_ones_do_not():
    layers = [layer for _ in range(20) for layer in (nn.Linear(8, 8), nn.BatchNorm1d(8))]
    model = nn.Sequential(*layers, nn.Linear(8, 3)).eval()
    for layer in layers[1::2]:
        layer.running_var.fill_(1e-6)
    loader = [(torch.randn(16, 8), torch.arange(16) % 3) for _ in range(3)]
    for statistics, finite in (("inherited", False), ("estimated", True)):
        method = BadTeacher(statistics=statistics)
        method.prepare(model)
        method.edit(model, loader, ())
        with torch.no_grad():
            predictions = method.incompetent(loader[0][0]).softmax(1)
        assert bool(predictions.isfinite().all()) is finite, statistics


def test_the_random_teacher_is_random_and_the_model_stays_as_it_is():
    torch.manual_seed(5)
    model = trained_looking(SmallCNN(1, 3, width=4))
    before = copy.deepcopy(model.state_dict())
    method = BadTeacher()
    method.prepare(model)
    method.edit(model, images(0), ())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in method.competent.state_dict().items())
    assert not torch.equal(method.incompetent.head.weight, model.head.weight)
    other = BadTeacher(seed=1)
    other.prepare(model)
    assert not torch.equal(other.incompetent.head.weight, method.incompetent.head.weight)


def test_mls_bench_draws_kaiming_normal_weights_and_keeps_the_statistics():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 300), nn.BatchNorm1d(300), nn.Linear(300, 3))
    model[1].running_mean.fill_(0.3)
    method = BadTeacher(form="mls_bench", statistics="inherited")
    method.prepare(model)
    teacher = method.incompetent
    assert float(teacher[0].weight.std()) == pytest.approx((2 / 100) ** 0.5, rel=0.03)
    assert float(teacher[0].bias.abs().max()) == 0
    assert torch.equal(teacher[1].running_mean, model[1].running_mean)


@pytest.mark.parametrize("form", ["published", "mls_bench"])
def test_only_mls_bench_leaves_the_biases_of_convolutions_trained(form):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    method = BadTeacher(form=form)
    method.prepare(model)
    assert torch.equal(method.incompetent[0].bias, model[0].bias) == (form == "mls_bench")
    assert not torch.equal(method.incompetent[0].weight, model[0].weight)


def test_a_resumed_method_has_the_same_teachers():
    torch.manual_seed(0)
    model = trained_looking(SmallCNN(1, 3, width=4))
    first, second = BadTeacher(), BadTeacher()
    first.prepare(model)
    first.edit(model, images(0), ())
    second.prepare(model)
    second.load_state_dict(first.state_dict())
    for name, value in first.incompetent.state_dict().items():
        assert torch.equal(value, second.incompetent.state_dict()[name]), name
    optimizer = second.configure_optimizer(model.parameters())
    second.unlearn_step(model, images(1)[0], images(2)[0], optimizer, 0, 0)
    assert BadTeacher().state_dict() == {"statistics": {}}


def test_a_driver_that_leaves_a_hook_out_is_told():
    model, retain = trained_looking(SmallCNN(1, 3, width=4)), images(1)[0]
    method = BadTeacher()
    optimizer = method.configure_optimizer(model.parameters())
    with pytest.raises(RunError, match="prepare and edit"):
        method.unlearn_step(model, retain, retain, optimizer, 0, 0)
    method.prepare(model)
    with pytest.raises(RunError, match="prepare and edit"):
        method.unlearn_step(model, retain, retain, optimizer, 0, 0)


@pytest.mark.parametrize(("settings", "named"), [({"form": "x"}, "form"), ({"statistics": "x"}, "statistics")])
def test_unknown_settings_are_named(settings, named):
    with pytest.raises(InputError, match=f"BadTeacher.{named}"):
        BadTeacher(**settings)
