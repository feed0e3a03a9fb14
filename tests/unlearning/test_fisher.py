"""Fisher forgetting: the variance of its noise against the Fisher information of a linear model."""

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.unlearning import FisherForgetting


def records(n=9):
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(n, 2, generator=generator)
    inputs[:, 1] *= 0.01  # a direction that the records hardly depend on
    return inputs, torch.randint(3, (n,), generator=generator)


def linear():
    torch.manual_seed(0)
    return nn.Linear(2, 3, bias=False)


def information(weight, inputs):
    """F = E_x sum_k p_k ((onehot_k - p) x^T)^2, written out."""
    p = (inputs @ weight.T).softmax(1)
    errors = torch.eye(3)[None] - p[:, None]  # [n, k, row]
    return torch.einsum("nk,nkr,nc->rc", p, errors.square(), inputs.square()) / len(inputs)


@pytest.mark.parametrize("strength", [0.0, 1.0, 4.0])
def test_the_noise_is_a_normal_draw_with_the_clamped_inverse_of_the_information_as_variance(strength):
    model, weight = linear(), linear().weight.detach().clone()
    inverse = 1 / (information(weight, records()[0]) + 1e-8)
    assert float(inverse[:, 0].max()) < 50 < float(inverse[:, 1].min()), "one direction is clamped, the other is not"
    variance = strength * 1e-3 * inverse.clamp(max=50.0)
    torch.manual_seed(11)
    FisherForgetting(alpha=1e-3, clamp=50.0, strength=strength).edit(model, [records()], [])
    torch.manual_seed(11)
    torch.testing.assert_close(model.weight.detach(), weight + variance.sqrt() * torch.randn(3, 2))


def test_only_the_first_records_count_where_a_number_is_given():
    few, all_of_few = linear(), linear()
    inputs, labels = records()
    for model, data, number in ((few, [(inputs, labels)], 4), (all_of_few, [(inputs[:4], labels[:4])], None)):
        torch.manual_seed(1)
        FisherForgetting(alpha=1e-2, records=number).edit(model, data, [])
    torch.testing.assert_close(few.weight, all_of_few.weight)


@pytest.mark.parametrize(("setting", "value"), [("alpha", -1.0), ("clamp", 0.0), ("records", 0)])
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(InputError, match=f"FisherForgetting.{setting}"):
        FisherForgetting(**{setting: value})
