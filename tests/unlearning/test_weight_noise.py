"""Noise relative to the size of each tensor."""

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.unlearning import WeightNoise


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 40), nn.BatchNorm1d(40), nn.Linear(40, 30))
    with torch.no_grad():
        model[2].weight.mul_(100)
        model[2].bias.zero_()
    return model


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_the_noise_has_the_stated_size_in_every_tensor(strength):
    model, original = network(), network()
    torch.manual_seed(4)
    WeightNoise(sigma=0.2, strength=strength).edit(model, (), ())
    torch.manual_seed(4)
    for name, before in original.named_parameters():
        rms = before.detach().square().mean().sqrt()
        expected = before.detach() + strength * 0.2 * rms * torch.randn(before.shape)
        torch.testing.assert_close(model.get_parameter(name).detach(), expected)
    assert float(model[2].bias.detach().abs().max()) == 0
    for name, before in original.named_buffers():
        assert torch.equal(model.get_buffer(name), before)


def test_the_relative_size_is_sigma():
    model, original = network(), network()
    WeightNoise(sigma=0.2).edit(model, (), ())
    for layer in (0, 2):
        noise = (model[layer].weight - original[layer].weight).detach()
        assert float(noise.norm() / original[layer].weight.detach().norm()) == pytest.approx(0.2, rel=0.1)


def test_settings():
    assert WeightNoise.needs == frozenset()
    assert WeightNoise().epochs == 0
    with pytest.raises(InputError, match=r"WeightNoise\.sigma"):
        WeightNoise(sigma=-0.1)
