import copy

import pytest
import torch
from torch import nn

from retrace_pl.attacks import NotApplicable
from retrace_pl.attacks.parameter_difference import exact_direction, last_linear, parameter_difference
from retrace_pl.errors import AccessError, InputError, RunError
from retrace_pl.models import SmallCNN
from retrace_pl.traces import ModelPair


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def edited(model, edit):
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, value in model.named_parameters():
            edit(name, value)
    return model


def difference_after(edit, model=None):
    model = network() if model is None else model
    return parameter_difference(ModelPair(model, edited(model, edit), "white"))


def test_the_difference_is_what_was_added():
    found = difference_after(lambda name, value: value.add_(0.25))
    assert set(found.changes) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert all(torch.allclose(value, torch.full_like(value, 0.25)) for value in found.changes.values())
    norm = torch.cat([value.flatten() for value in found.original.values()]).norm()
    assert found.relative_norm == pytest.approx(0.25 * (6 * 8 + 8 + 8 * 3 + 3) ** 0.5 / float(norm), rel=1e-5)


def test_parameters_that_did_not_move_are_left_out():
    found = difference_after(lambda name, value: value.add_(0.1) if name.startswith("2.") else value)
    assert set(found.changes) == {"2.weight", "2.bias"}


def test_batch_norm_statistics_are_no_parameters():
    model = SmallCNN(1, 10, width=2)
    after = copy.deepcopy(model)
    after.body[1].running_mean.add_(1.0)
    with pytest.raises(NotApplicable, match="the same parameters"):
        parameter_difference(ModelPair(model, after, "white"))
    assert not any("running" in name for name in difference_after(lambda _, v: v.add_(1e-3), model).original)


@pytest.mark.parametrize("access", ["black", "gray"])
def test_parameters_need_white_box_access(access):
    with pytest.raises(AccessError, match="white"):
        parameter_difference(ModelPair(network(), network(1), access))


def test_what_cannot_be_compared_is_not_applicable():
    wide = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
    deep = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.Linear(3, 3))
    with pytest.raises(NotApplicable, match=r"architecture: 0.weight has shape \[8, 6\] in one and \[9, 6\]"):
        parameter_difference(ModelPair(network(), wide, "white"))
    with pytest.raises(NotApplicable, match=r"only one of them has the parameter 3\.weight"):
        parameter_difference(ModelPair(network(), deep, "white"))
    with pytest.raises(NotApplicable, match="no parameters"):
        parameter_difference(ModelPair(nn.Flatten(), nn.Flatten(), "white"))
    model = network()
    with pytest.raises(NotApplicable, match="the same parameters"):
        parameter_difference(ModelPair(model, model, "white"))
    broken = edited(model, lambda name, value: value.fill_(float("nan")))
    with pytest.raises(RunError, match=r"0\.weight of the unlearned model"):
        parameter_difference(ModelPair(model, broken, "white"))


def test_shrinking_alone_is_a_dampening():
    def dampen(name, value):
        value.mul_(torch.where(value.abs() > 0.1, 0.3, 1.0))

    assert difference_after(dampen).dampened
    assert difference_after(lambda name, value: value.mul_(0.99)).dampened
    assert difference_after(lambda name, value: value.masked_fill_(value.abs() < 0.2, 0.0)).dampened


def test_steps_in_other_directions_are_no_dampening():
    random = torch.Generator().manual_seed(0)
    step = difference_after(lambda name, value: value.add_(1e-3 * torch.randn(value.shape, generator=random)))
    flipped = difference_after(lambda name, value: value.mul_(-0.5))
    grown = difference_after(lambda name, value: value.mul_(1.5))
    few = difference_after(lambda name, value: value.mul_(0.5) if name == "2.bias" else value)
    assert not any(found.dampened for found in (step, flipped, grown, few))


def test_the_exact_direction_is_the_sum_of_the_deleted_gradients(digits, digits_mlp, gradients):
    inputs, labels = (values[300:340] for values in digits)
    deleted, lr = 3, 0.1
    everything, retained = gradients(digits_mlp, inputs, labels), gradients(digits_mlp, inputs[3:], labels[3:])
    theta = edited(digits_mlp, lambda name, value: value.sub_(lr * everything[name]))
    theta_u = edited(digits_mlp, lambda name, value: value.sub_(lr * retained[name]))
    found = parameter_difference(ModelPair(theta, theta_u, "white"))
    initial = {**dict(digits_mlp.named_parameters()), "running_mean": torch.zeros(3)}
    direction = exact_direction(found, initial, len(inputs), deleted)
    for name, value in gradients(digits_mlp, inputs[:3], labels[:3]).items():
        torch.testing.assert_close(direction[name], lr * deleted * value, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(("records", "deleted"), [(10, 10), (10, 0), (0, 1)])
def test_counts_must_leave_records_on_both_sides(records, deleted):
    found = difference_after(lambda name, value: value.add_(0.1))
    with pytest.raises(InputError, match="1 <= deleted < records"):
        exact_direction(found, found.original, records, deleted)


def test_initial_weights_must_fit():
    found = difference_after(lambda name, value: value.add_(0.1))
    with pytest.raises(InputError, match="initial_weights do not fit the models: only one of them has"):
        exact_direction(found, {"0.weight": found.original["0.weight"]}, 10, 1)


def test_the_last_linear_layer():
    assert last_linear(network()) == "2"
    assert last_linear(SmallCNN(1, 10, width=2)) == "head"
    assert last_linear(nn.Linear(2, 2)) == ""
    with pytest.raises(NotApplicable, match="Conv2d has no linear layer"):
        last_linear(nn.Conv2d(1, 1, 1))
