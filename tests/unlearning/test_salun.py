"""SalUn: the mask against gradients by hand, and weights outside it that keep their bits."""

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError, RunError
from retrace_pl.models import SmallCNN
from retrace_pl.unlearning import RandomLabel, SalUn
from retrace_pl.unlearning.labels import fixed_labels


def batch(seed, n):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


RETAIN, FORGET = batch(1, 6), batch(2, 5)


def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


@pytest.mark.parametrize(("keep", "marked"), [(0.0, 0), (0.2, 3), (0.5, 8), (1.0, 15)])
def test_the_mask_holds_the_weights_with_the_largest_forget_gradient(keep, marked):
    """15 weights of a linear model with gradient (p - onehot)^T x / n; the records come in two batches."""
    model, (inputs, labels) = linear(), FORGET
    with torch.no_grad():
        error = (model(inputs).softmax(1) - torch.eye(3)[labels]) / 5
    gradient = torch.cat([(error.T @ inputs).flatten(), error.sum(0)]).abs()
    method = SalUn(keep=keep)
    method.edit(model, (), [(inputs[:3], labels[:3]), (inputs[3:], labels[3:])])
    mask = torch.cat([method.mask["weight"].flatten(), method.mask["bias"]])
    assert int(mask.sum()) == marked
    if 0 < marked < 15:
        assert gradient[mask].min() > gradient[~mask].max()
    assert model.weight.grad is None


@pytest.mark.parametrize(("strength", "a"), [(1.0, 1.0), (0.0, 1.0), (2.0, 0.5)])
def test_the_step_descends_both_losses_inside_the_mask(strength, a):
    model, lr = linear(), 0.2
    method = SalUn(lr=lr, strength=strength, a=a, keep=0.4, seed=4)
    method.edit(model, (), [FORGET])
    wrong = fixed_labels(*FORGET, 3, seed=4)
    with torch.no_grad():
        retain_error = (model(RETAIN[0]).softmax(1) - torch.eye(3)[RETAIN[1]]) / 6
        forget_error = (model(FORGET[0]).softmax(1) - torch.eye(3)[wrong]) / 5
        gradient = a * retain_error.T @ RETAIN[0] + strength * forget_error.T @ FORGET[0]
        expected = model.weight - lr * gradient * method.mask["weight"]
    result = method.unlearn_step(model, RETAIN, FORGET, method.configure_optimizer(model.parameters()), 0, 0)
    torch.testing.assert_close(model.weight.detach(), expected)
    torch.testing.assert_close(result["loss"], a * result["retain_loss"] + strength * result["wrong_label_loss"])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_weights_outside_the_mask_keep_their_bits(optimizer):
    torch.manual_seed(0)
    model = SmallCNN(1, 3, width=4)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    retain, forget = (
        (torch.rand(n, 1, 8, 8, generator=generator), torch.randint(3, (n,), generator=generator)) for n in (6, 5)
    )
    method = SalUn(optimizer=optimizer, lr=0.01, momentum=0.9, weight_decay=0.1, keep=0.3)
    model.eval()
    method.prepare(model)
    method.edit(model, (), [forget])
    method.set_mode(model)
    running = method.configure_optimizer(model.parameters())
    with torch.no_grad():  # momentum gathered before the method's own steps must not leak out of the mask either
        for parameter in model.parameters():
            if optimizer == "sgd":
                running.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
    for step in range(3):
        method.unlearn_step(model, retain, forget, running, step, 0)
    moved = 0
    for name, parameter in model.named_parameters():
        inside = method.mask[name]
        assert torch.equal(parameter[~inside], before[name][~inside]), name
        moved += int((parameter[inside] != before[name][inside]).sum())
    assert moved > 0.9 * sum(int(inside.sum()) for inside in method.mask.values())


def test_with_everything_in_the_mask_it_is_random_label():
    models = [linear(), linear()]
    methods = [SalUn(keep=1.0, lr=0.1), RandomLabel(lr=0.1, optimizer="sgd")]
    for method, model in zip(methods, models, strict=True):
        method.prepare(model)
        method.edit(model, (), [FORGET])
        optimizer = method.configure_optimizer(model.parameters())
        for step in range(3):
            method.unlearn_step(model, RETAIN, FORGET, optimizer, step, 0)
    assert torch.equal(models[0].weight, models[1].weight)


def test_frozen_parameters_are_left_out():
    model = linear()
    model.bias.requires_grad_(False)
    method = SalUn()
    method.edit(model, (), [FORGET])
    assert list(method.mask) == ["weight"]
    method.unlearn_step(model, RETAIN, FORGET, method.configure_optimizer([model.weight]), 0, 0)


def test_the_mask_survives_an_interruption_and_a_new_run_has_none():
    model, first, second = linear(), SalUn(), SalUn()
    first.edit(model, (), [FORGET])
    second.prepare(model)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(mask, first.mask[name]) for name, mask in second.mask.items())
    first.prepare(model)
    with pytest.raises(RunError, match="SalUn has no mask yet; call edit"):
        first.unlearn_step(model, RETAIN, FORGET, first.configure_optimizer(model.parameters()), 0, 0)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="SalUn needs records to forget"):
        SalUn().edit(linear(), [RETAIN], ())
    with pytest.raises(InputError, match=r"SalUn\.keep"):
        SalUn(keep=1.1)
    with pytest.raises(InputError, match=r"SalUn\.a"):
        SalUn(a=-1)
