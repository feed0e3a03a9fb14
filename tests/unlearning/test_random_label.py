"""RandomLabel against its equation on a linear model."""

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.unlearning import RandomLabel
from retrace_pl.unlearning.labels import fixed_labels, redrawn_labels

LR = 0.2


def batch(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def gradient(model, inputs, labels):
    """Of the mean cross-entropy of a linear model: (p - onehot)^T x / n, and its sum."""
    with torch.no_grad():
        error = (model(inputs).softmax(1) - torch.eye(3)[labels]) / len(labels)
    return error.T @ inputs, error.sum(0)


def step(method, model, retain, forget):
    return method.unlearn_step(model, retain, forget, method.configure_optimizer(model.parameters()), 0, 0)


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("strength", [0.0, 1.0, 2.5])
def test_the_step_descends_both_losses(redraw, strength):
    model, retain, forget = linear(), batch(1), batch(2, 5)
    torch.manual_seed(3)
    wrong = redrawn_labels(forget[1], 3) if redraw else fixed_labels(*forget, 3, seed=9)
    assert bool((wrong != forget[1]).all())
    rw, rb = gradient(model, *retain)
    fw, fb = gradient(model, forget[0], wrong)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    torch.manual_seed(3)
    method = RandomLabel(lr=LR, optimizer="sgd", redraw=redraw, seed=9, strength=strength)
    result = step(method, model, retain, forget)
    torch.testing.assert_close(model.weight.detach(), weight - LR * (rw + strength * fw))
    torch.testing.assert_close(model.bias.detach(), bias - LR * (rb + strength * fb))
    torch.testing.assert_close(result["loss"], result["retain_loss"] + strength * result["wrong_label_loss"])


def test_labels_stay_or_change():
    forget = batch(2, 30)
    fixed, redrawn = RandomLabel(), RandomLabel(redraw=True)
    assert torch.equal(fixed.wrong_labels(forget, 3), fixed.wrong_labels(forget, 3))
    assert not torch.equal(redrawn.wrong_labels(forget, 3), redrawn.wrong_labels(forget, 3))


def test_weights_of_a_wrapper_reach_the_forget_loss():
    model, retain, forget = linear(), batch(1), batch(2)
    method = RandomLabel(lr=LR, optimizer="sgd")
    method.forget_weights = lambda given: torch.zeros(len(given[1]))
    rw, _ = gradient(model, *retain)
    weight = model.weight.detach().clone()
    step(method, model, retain, forget)
    torch.testing.assert_close(model.weight.detach(), weight - LR * rw)


def test_published_settings_and_a_model_of_one_class():
    method = RandomLabel()
    assert (method.optimizer_name, method.lr, method.epochs, method.redraw) == ("adam", 1e-4, 3, False)
    forget = (torch.randn(2, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match="two classes"):
        step(method, nn.Linear(4, 1), forget, forget)
