"""UNSIR: noise that raises the error, impairing and repairing steps by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from retrace_pl.errors import InputError, RunError
from retrace_pl.unlearning import UNSIR

LR = 0.2


def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def batch(seed, n, labels=None):
    generator = torch.Generator().manual_seed(seed)
    inputs, drawn = torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)
    return inputs, drawn if labels is None else torch.tensor(labels)


RETAIN = batch(1, 6)


def test_one_step_of_noise_by_hand():
    """Adam's first step has length noise_lr in every coordinate, against the sign of the gradient."""
    model = linear()
    method = UNSIR(noise_per_class=5, noise_steps=1, noise_lr=0.1, noise_penalty=0.2)
    torch.manual_seed(3)
    method.edit(model, (), [batch(2, 4, [2, 2, 0, 2])])
    torch.manual_seed(3)
    start = torch.randn(10, 4)
    labels = torch.tensor([0] * 5 + [2] * 5)
    with torch.no_grad():
        error = model(start).softmax(1) - torch.eye(3)[labels]
        gradient = (-error @ model.weight + 0.2 * 2 * start) / 10
    noise, found = method.noise
    assert torch.equal(found, labels)
    torch.testing.assert_close(noise, start - 0.1 * gradient.sign(), rtol=1e-4, atol=1e-4)
    assert model.weight.grad is None


def test_noise_is_what_the_model_finds_least_like_the_class():
    model = linear()
    method = UNSIR(noise_penalty=0.0)
    torch.manual_seed(0)
    method.edit(model, (), [batch(2, 4, [1, 1, 1, 1])])
    noise, labels = method.noise
    with torch.no_grad():
        assert functional.cross_entropy(model(noise), labels) > 2 * functional.cross_entropy(
            model(torch.randn(64, 4)), labels
        )


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_the_first_epochs_impair_and_the_others_repair(strength):
    method = UNSIR(lr=LR, optimizer="sgd", strength=strength, noise_per_class=4, impair_epochs=1)
    model = linear()
    method.prepare(model)
    method.edit(model, (), [batch(2, 4, [1, 1, 1, 1])])
    noise, labels = method.noise  # 4 of them, all of which go with a retain batch of 6
    with torch.no_grad():
        error = (model(RETAIN[0]).softmax(1) - torch.eye(3)[RETAIN[1]]) / 6
        noise_error = (model(noise).softmax(1) - torch.eye(3)[labels]) / 4
        expected = model.weight - LR * (error.T @ RETAIN[0] + strength * noise_error.T @ noise)
    result = method.unlearn_step(model, RETAIN, None, method.configure_optimizer(model.parameters()), 0, 0)
    torch.testing.assert_close(model.weight.detach(), expected)
    assert "noise_loss" in result

    with torch.no_grad():
        error = (model(RETAIN[0]).softmax(1) - torch.eye(3)[RETAIN[1]]) / 6
        expected = model.weight - LR * error.T @ RETAIN[0]
    result = method.unlearn_step(model, RETAIN, None, method.configure_optimizer(model.parameters()), 1, 1)
    torch.testing.assert_close(model.weight.detach(), expected)
    assert "noise_loss" not in result


def test_no_more_noise_than_retained_records_in_a_step():
    seen = []
    model = linear()
    model.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    method = UNSIR(noise_per_class=64, noise_steps=0)
    method.edit(model, (), [batch(2, 2, [1, 1])])
    method.unlearn_step(model, RETAIN, None, method.configure_optimizer(model.parameters()), 0, 0)
    assert seen == [12]


def test_the_contents_of_forgotten_records_are_not_used():
    found = []
    for seed in (5, 6):
        method = UNSIR()
        torch.manual_seed(1)
        method.edit(linear(), (), [batch(seed, 4, [0, 1, 0, 1])])
        found.append(method.noise[0])
    assert torch.equal(*found)


def test_the_noise_survives_an_interruption_and_a_new_run_has_none():
    model, first, second = linear(), UNSIR(), UNSIR()
    first.edit(model, (), [batch(2, 2, [1, 1])])
    second.prepare(model)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(*pair) for pair in zip(first.noise, second.noise, strict=True))
    first.prepare(model)
    assert first.state_dict() == {}
    with pytest.raises(RunError, match="UNSIR has no noise yet; call edit"):
        first.unlearn_step(model, RETAIN, None, first.configure_optimizer(model.parameters()), 0, 0)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"impair_epochs": -1}, "impair_epochs"),
        ({"noise_per_class": 0}, "noise_per_class"),
        ({"noise_steps": -1}, "noise_steps"),
        ({"noise_lr": 0}, "noise_lr"),
        ({"noise_penalty": -1}, "noise_penalty"),
    ],
)
def test_settings_out_of_range_are_named(settings, named):
    with pytest.raises(InputError, match=rf"UNSIR\.{named}"):
        UNSIR(**settings)


def test_data_that_cannot_be_used_is_named():
    with pytest.raises(InputError, match="UNSIR needs records to forget"):
        UNSIR().edit(linear(), (), ())
    with pytest.raises(InputError, match=r"optimises its inputs and these are torch\.int64"):
        UNSIR().edit(linear(), (), [(torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))])
