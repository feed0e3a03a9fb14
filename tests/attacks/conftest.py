"""Real digits at 8x8, small classifiers trained on them, and deletions of known records."""

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from retrace_pl.models import SmallCNN
from retrace_pl.traces import ModelPair

TRAINED = 300


@pytest.fixture(scope="session")
def digits():
    inputs, labels = load_digits(return_X_y=True)
    return torch.tensor(inputs / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels)


def train(model, inputs, labels, epochs):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=order).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def digits_mlp(digits):
    """A perceptron that knows the first 300 digits by heart."""
    inputs, labels = digits
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
        return train(model, inputs[:TRAINED], labels[:TRAINED], 60)


@pytest.fixture(scope="session")
def digits_cnn(digits):
    """A convolutional network with batch normalisation."""
    inputs, labels = digits
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return train(SmallCNN(1, 10, width=4), inputs[:TRAINED], labels[:TRAINED], 10)


def loss_gradients(model, inputs, labels):
    """Gradient of the mean cross-entropy by parameter, in eval mode."""
    model = copy.deepcopy(model).eval().requires_grad_(True)
    loss = nn.functional.cross_entropy(model(inputs), labels)
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))


@pytest.fixture(scope="session")
def gradients():
    return loss_gradients


@pytest.fixture(scope="session")
def ascent_pair():
    """A model and the same after one step of gradient ascent on the given records."""

    def pair(model, inputs, labels, lr=1.0, access="white"):
        after = copy.deepcopy(model)
        change = loss_gradients(model, inputs, labels)
        with torch.no_grad():
            for name, value in after.named_parameters():
                value += lr * change[name]
        return ModelPair(copy.deepcopy(model), after, access)

    return pair


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.budgets, self.updates, self.ends = [], [], 0

    def on_start(self, budget):
        self.budgets.append(budget)

    def on_update(self, queries, pool, scalars):
        self.updates.append((queries, len(pool), scalars))

    def on_end(self):
        self.ends += 1


@pytest.fixture
def recorder():
    return Recorder()
