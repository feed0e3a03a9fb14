import pytest
import torch

from retrace_pl.errors import InputError
from retrace_pl.metrics.synthetic import mixup, uniform_noise


def test_noise_fills_the_range_of_the_inputs():
    noise = uniform_noise(torch.tensor([[[-2.0, 4.0]]]), 5000, seed=1)
    assert noise.shape == (5000, 1, 2)
    assert -2 <= float(noise.min()) < -1.98
    assert 3.98 < float(noise.max()) <= 4
    assert float(noise.mean()) == pytest.approx(1.0, abs=0.06)
    assert torch.equal(noise, uniform_noise(torch.tensor([[[-2.0, 4.0]]]), 5000, seed=1))
    assert not torch.equal(noise, uniform_noise(torch.tensor([[[-2.0, 4.0]]]), 5000, seed=2))


def test_mixtures_lie_between_two_different_inputs():
    inputs = torch.eye(4)
    mixed = mixup(inputs, 800, seed=0)
    assert mixed.shape == (800, 4)
    assert (mixed > 0).sum(1).eq(2).all(), "two different inputs each"
    torch.testing.assert_close(mixed.sum(1), torch.ones(800))
    assert float(mixed.max(1).values.mean()) == pytest.approx(0.75, abs=0.02), "weights are uniform"
    assert (mixed > 0).float().mean(0).min() > 0.4, "every input is used"


@pytest.mark.parametrize("make", [uniform_noise, mixup])
@pytest.mark.parametrize("inputs", [torch.ones(3, 2, dtype=torch.int64), torch.ones(0, 2)])
def test_tokens_and_nothing_are_refused(make, inputs):
    with pytest.raises(InputError, match="floating-point"):
        make(inputs, 4, 0)


def test_one_input_cannot_be_mixed():
    with pytest.raises(InputError, match="at least two"):
        mixup(torch.ones(1, 2), 4, 0)
