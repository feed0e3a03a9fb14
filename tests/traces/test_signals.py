import math

import numpy as np
import pytest
import torch

from retrace_pl.traces import GRADIENT_EPS, delta_gradient, delta_loss, delta_prediction


def test_prediction_is_the_euclidean_distance():
    p = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    q = torch.tensor([[0.0, 1.0, 0.0], [0.2, 0.6, 0.2]])
    torch.testing.assert_close(delta_prediction(p, q), torch.tensor([math.sqrt(2), math.sqrt(0.18)]))


def test_prediction_flattens_whatever_follows_the_batch():
    generator = torch.Generator().manual_seed(0)
    p, q = torch.rand(4, 3, 5, generator=generator), torch.rand(4, 3, 5, generator=generator)
    expected = [np.linalg.norm((a - b).numpy().ravel()) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(delta_prediction(p, q), expected, rtol=1e-6)


def test_loss_is_the_absolute_difference():
    difference = delta_loss(torch.tensor([0.5, 3.0, 1.0]), torch.tensor([2.0, 1.0, 1.0]))
    assert difference.tolist() == [1.5, 2.0, 0.0]


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_gradient_is_one_minus_the_cosine(scale):
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(50, 3, 4, 4, generator=generator) * scale
    second = first * 0.3 + torch.randn(50, 3, 4, 4, generator=generator) * scale
    delta, tiny = delta_gradient(first, second)
    cosine = torch.nn.functional.cosine_similarity(first.double().flatten(1), second.double().flatten(1))
    torch.testing.assert_close(delta.double(), 1 - cosine, rtol=1e-5, atol=1e-6)
    assert not tiny.any()


def test_gradient_special_directions():
    first = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    second = torch.tensor([[7.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1.0, 1.0]])
    delta, _ = delta_gradient(first, second)
    torch.testing.assert_close(delta, torch.tensor([0.0, 1.0, 2.0, 1 - math.sqrt(0.5)]))


def test_small_angles_keep_their_precision_and_rounding_becomes_zero():
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    second = torch.tensor([[1.0, 3e-3], [1.0, 1e-3]])  # 1 - cos = 4.5e-6 and 5e-7
    delta, _ = delta_gradient(first, second)
    assert delta[0].item() == pytest.approx(4.5e-6, rel=1e-3)
    assert delta[1].item() == 0.0


def test_vanishing_gradients_are_flagged_and_never_nan():
    zero, small, large = [0.0, 0.0], [0.3 * GRADIENT_EPS, 0.0], [1.0, 0.0]
    first = torch.tensor([zero, zero, large, small, large])
    second = torch.tensor([zero, large, zero, small, large])
    delta, tiny = delta_gradient(first, second)
    torch.testing.assert_close(delta, torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0]))
    assert tiny.tolist() == [True, True, True, True, False]


def test_direction_fades_as_the_norm_falls_below_eps():
    norms = torch.logspace(-4, -12, 9, dtype=torch.float64)
    first = norms[:, None] * torch.tensor([1.0, 0.0], dtype=torch.float64)
    second = -first  # opposite: 2 while there is a direction, 0 when both vanish
    delta, tiny = delta_gradient(first, second)
    expected = 2 * norms**2 / (norms**2 + GRADIENT_EPS**2)
    torch.testing.assert_close(delta, torch.where(expected < 1e-6, 0.0, expected))
    assert tiny.tolist() == (norms < GRADIENT_EPS).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(dtype):
    generator = torch.Generator().manual_seed(2)
    first = (torch.randn(8, 20, generator=generator) * 1e-3).to(dtype)  # squares underflow in float16
    second = (torch.randn(8, 20, generator=generator) * 1e-3).to(dtype)
    delta, _ = delta_gradient(first, second)
    assert delta.dtype == torch.float32
    reference, _ = delta_gradient(first.double(), second.double())
    torch.testing.assert_close(delta.double(), reference, rtol=1e-5, atol=1e-6)
    assert delta_prediction(first, second).dtype == torch.float32
