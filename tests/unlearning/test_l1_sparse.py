"""Fine-tuning under a fading L1 penalty, on a linear model differentiated by hand."""

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.unlearning import L1Sparse

LR = 0.3


def retain():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)


@pytest.mark.parametrize(
    ("strength", "epoch", "weight"),
    [(1.0, 0, 0.1), (1.0, 1, 0.075), (1.0, 3, 0.025), (2.0, 1, 0.15), (0.0, 0, 0.0), (1.0, 4, 0.0), (1.0, 9, 0.0)],
)
def test_the_step_descends_the_loss_and_the_penalty_of_its_epoch(strength, epoch, weight):
    torch.manual_seed(0)
    model, (inputs, labels) = nn.Linear(4, 3), retain()
    w, b = model.weight.detach().clone(), model.bias.detach().clone()
    method = L1Sparse(epochs=4, lr=LR, gamma=0.1, strength=strength)
    assert method.penalty_weight(epoch) == pytest.approx(weight)
    error = ((inputs @ w.T + b).softmax(1) - torch.eye(3)[labels]) / len(labels)
    optimizer = method.configure_optimizer(model.parameters())
    result = method.unlearn_step(model, (inputs, labels), None, optimizer, 0, epoch)
    torch.testing.assert_close(model.weight.detach(), w - LR * (error.T @ inputs + weight * w.sign()))
    torch.testing.assert_close(model.bias.detach(), b - LR * (error.sum(0) + weight * b.sign()))
    cross_entropy = -(inputs @ w.T + b).log_softmax(1)[torch.arange(6), labels].mean()
    norm = w.abs().sum() + b.abs().sum()
    torch.testing.assert_close(result["retain_loss"], cross_entropy)
    torch.testing.assert_close(result["l1_norm"], norm)
    torch.testing.assert_close(result["loss"], cross_entropy + weight * norm)


def test_a_run_makes_the_model_sparser_than_plain_fine_tuning():
    norms = []
    for strength in (0.0, 1.0):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        method = L1Sparse(epochs=20, lr=0.1, gamma=0.05, strength=strength)
        optimizer = method.configure_optimizer(model.parameters())
        for epoch in range(20):
            method.unlearn_step(model, retain(), None, optimizer, epoch, epoch)
        norms.append(sum(float(p.detach().abs().sum()) for p in model.parameters()))
    assert norms[1] < 0.9 * norms[0]


def test_settings_out_of_range_are_named():
    with pytest.raises(InputError, match=r"L1Sparse\.gamma"):
        L1Sparse(gamma=-1e-4)
    with pytest.raises(InputError, match=r"L1Sparse\.epochs"):
        L1Sparse(epochs=0).penalty_weight(0)
    assert L1Sparse.needs == {"retain"}
