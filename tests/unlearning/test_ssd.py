"""Selective synaptic dampening against its equations, on a linear model."""

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.unlearning import SSD


def stream(seed, n, label=None):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    inputs = torch.randn(n, 4, generator=generator)
    return inputs, labels if label is None else torch.full((n,), label)


def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 3, bias=False)


def importance(weight, inputs, labels):
    error = (inputs @ weight.T).softmax(1) - torch.eye(3)[labels]
    return (error[:, :, None] * inputs[:, None, :]).square().mean(0)


RETAIN, FORGET = stream(1, 12), stream(2, 4, label=2)


def run(model, **settings):
    method = SSD(**settings)
    method.prepare(model)
    split = [(RETAIN[0][:5], RETAIN[1][:5]), (RETAIN[0][5:], RETAIN[1][5:])]
    method.edit(model, split, [FORGET])
    return model.weight.detach()


@pytest.mark.parametrize("lam", [0.5, 1.0, 1.6])
@pytest.mark.parametrize(("alpha", "strength"), [(1.5, 1.0), (3.0, 2.0)])
def test_weights_above_the_threshold_are_dampened(lam, alpha, strength):
    model = linear()
    weight = model.weight.detach().clone()
    forget = importance(weight, *FORGET)
    everything = importance(weight, torch.cat([RETAIN[0], FORGET[0]]), torch.cat([RETAIN[1], FORGET[1]]))
    selected = forget > alpha / strength * everything
    assert 0 < int(selected.sum()) < selected.numel()
    factor = torch.minimum(lam * everything / forget, torch.ones(()))
    expected = torch.where(selected, weight * factor, weight)
    assert not torch.equal(expected, weight)
    torch.testing.assert_close(run(model, alpha=alpha, strength=strength, lam=lam), expected)


def test_no_weight_grows():
    model = linear()
    weight = model.weight.detach().clone()
    assert torch.equal(run(model, alpha=1.5, lam=3.0), weight)  # lam I_D / I_f is 1.45 for the selected weight


@pytest.mark.parametrize("settings", [{"strength": 0.0}, {"alpha": 4.0}, {"alpha": 8.0, "strength": 2.0}])
def test_nothing_can_be_selected_at_strength_0_or_from_the_bound_on(settings, caplog):
    """The records to forget are a quarter, so alpha / strength = 4 is the bound."""
    model = linear()
    weight = model.weight.detach().clone()
    assert torch.equal(run(model, **settings), weight)
    assert "below 4 (n / n_f)" in caplog.text


def test_weights_that_no_record_reads_stay():
    model = nn.Linear(4, 3)
    model.eval()
    dead = (torch.zeros(4, 4), torch.zeros(4, dtype=torch.int64))
    before = model.weight.detach().clone()
    SSD(alpha=0.1).edit(model, [dead], [dead])
    assert torch.equal(model.weight, before), "0 / 0 is no importance"
    assert bool(model.bias.isfinite().all())


def test_frozen_parameters_stay():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    before = [p.detach().clone() for p in model.parameters()]
    SSD(alpha=0.5, lam=0.1).edit(model, [RETAIN], [FORGET])
    changed = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert changed == [False, False, True, True]


@pytest.mark.parametrize("setting", ["alpha", "lam"])
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(InputError, match=f"SSD.{setting}"):
        SSD(**{setting: 0.0})


def test_it_needs_both_streams_and_no_epoch():
    assert SSD.needs == {"retain", "forget", "cache"}
    assert SSD().epochs == 0
