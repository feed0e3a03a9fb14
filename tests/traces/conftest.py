"""Small pairs of models whose traces can be worked out by hand or by another route."""

import pytest
import torch
from torch import nn


def _mlp(seed: int, classes: int = 4) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, classes))
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return model


@pytest.fixture
def mlp():
    """Build an MLP over inputs of shape [n, 3, 2, 2] from a seed."""
    return _mlp


@pytest.fixture
def models():
    return _mlp(1), _mlp(2)


@pytest.fixture
def inputs():
    return torch.rand(37, 3, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def linear():
    """Build a two-class linear model, logits = W x, from its weight matrix."""

    def build(weight: list[list[float]], dtype: torch.dtype = torch.float64) -> nn.Linear:
        model = nn.Linear(2, 2, bias=False, dtype=dtype)
        model.weight.data = torch.tensor(weight, dtype=dtype)
        return model

    return build
