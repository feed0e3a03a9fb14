import math

import pytest
import torch
from torch import nn

from retrace_pl.attacks.probes import CoordinateAdam, SignedAscent, climb
from retrace_pl.models import ClassifierBehaviour
from retrace_pl.traces import ModelPair


class CountingPair(ModelPair):
    """A pair that counts what it is asked, and keeps it."""

    def __init__(self, *args):
        super().__init__(*args)
        self.asked = []

    def outputs(self, inputs):
        self.asked.append(inputs)
        return super().outputs(inputs)

    @property
    def count(self):
        return sum(map(len, self.asked))


def linear():
    """Two classes; the margin of class 1 is 3 x_0 - 2 x_1 + x_2."""
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [3.0, -2.0, 1.0]]))
    return model


def zoo(pair, shape, coordinates=64, block=2, lr=0.1, box=None):
    return CoordinateAdam(pair, shape, coordinates, block, 1e-3, lr, box, torch.Generator().manual_seed(0))


def test_estimated_slopes_move_every_coordinate_up_the_margin():
    pair = CountingPair(linear(), linear(), "black")
    climber = zoo(pair, (3,))
    assert climber.cost == 6
    starts = torch.zeros(2, 3)
    climber.start(starts)
    step = climber.step(torch.arange(2), starts, torch.tensor([1, 0]))
    # Adam's first step has the length of the learning rate, whatever the slope.
    torch.testing.assert_close(step.moved, torch.tensor([[0.1, -0.1, 0.1], [-0.1, 0.1, -0.1]]), atol=1e-4, rtol=0)
    assert pair.count == 12
    margin = 3 * 1e-3  # the best neighbour of class 1
    assert float(step.confidence[0]) == pytest.approx(1 / (1 + math.exp(-margin)), abs=1e-6)
    assert step.points[0].tolist() == pytest.approx([1e-3, 0, 0])


def test_slopes_at_the_bounds_of_the_box_are_one_sided():
    pair = CountingPair(linear(), linear(), "black")
    climber = zoo(pair, (3,), box=(0.0, 1.0))
    starts = torch.tensor([[0.0, 0.0, 0.5]])
    climber.start(starts)
    for _ in range(3):
        step = climber.step(torch.arange(1), starts, torch.tensor([1]))
    torch.testing.assert_close(climber._moments[0][0] / (1 - 0.9**3), torch.tensor([3.0, -2.0, 1.0]), atol=1e-2, rtol=0)
    assert step.moved[0, 1] == 0
    assert all(bool((asked >= 0).all()) for asked in pair.asked)


def test_only_the_chosen_coordinates_move():
    pair = CountingPair(linear(), linear(), "black")
    climber = zoo(pair, (3,), coordinates=1)
    starts = torch.zeros(4, 3)
    climber.start(starts)
    step = climber.step(torch.arange(4), starts, torch.ones(4, dtype=torch.int64))
    assert (step.moved != 0).sum(dim=1).tolist() == [1, 1, 1, 1]
    assert pair.count == 8


def test_a_coordinate_of_an_image_is_a_square_within_one_channel():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 5 * 5, 2))
    pair = CountingPair(model, model, "black")
    climber = zoo(pair, (2, 5, 5), coordinates=1)
    assert climber.size == 2 * 3 * 3
    starts = torch.zeros(1, 2, 5, 5)
    climber.start(starts)
    seen = torch.zeros(2, 5, 5)
    for _ in range(200):
        moved = climber.step(torch.arange(1), starts, torch.tensor([0])).moved[0] != 0
        seen += moved
        assert int(moved.any(dim=(1, 2)).sum()) == 1
        assert int(moved.any(dim=(0, 2)).sum()) <= 2
        assert int(moved.any(dim=(0, 1)).sum()) <= 2
    assert bool((seen > 0).all())


@pytest.mark.parametrize("access", ["white", "black"])
def test_climbing_reaches_the_confidence_and_counts_its_queries(digits, digits_mlp, access):
    pair = CountingPair(digits_mlp, digits_mlp, access)
    if access == "white":
        climber = SignedAscent(pair.networks()[0], ClassifierBehaviour())
    else:
        climber = zoo(pair, (1, 8, 8), block=1, box=(0.0, 1.0))
    starts, classes = digits[0][300:310], torch.arange(10)
    found, used = climb(climber, starts, classes, confidence=0.9995, steps=100, budget=10**6)
    assert bool((found.confidence >= 0.9995).all())
    outputs = pair.outputs(found.inputs).original
    torch.testing.assert_close(outputs.gather(1, classes[:, None]).flatten(), found.confidence)
    if access == "black":
        assert used == pair.count - 10
        torch.testing.assert_close(found.unlearned, found.confidence)
        assert all(bool((asked >= 0).all() & (asked <= 1).all()) for asked in pair.asked)
    else:
        assert bool(found.unlearned.isnan().all())
        assert 10 <= used < 1000
    assert bool((found.inputs >= 0).all() & (found.inputs <= 1).all())


@pytest.mark.parametrize("budget", [0, 3, 25, 41])
def test_the_budget_of_an_ascent_is_kept(digits, digits_mlp, budget):
    climber = SignedAscent(digits_mlp, ClassifierBehaviour(), lr=1e-4)
    found, used = climb(climber, digits[0][300:310], torch.arange(10), confidence=0.9999999, steps=100, budget=budget)
    assert used == budget
    assert len(found.classes) == min(budget, 10)
    pair = CountingPair(digits_mlp, digits_mlp, "black")
    _, used = climb(
        zoo(pair, (1, 8, 8), coordinates=2, lr=1e-4),
        digits[0][300:310],
        torch.arange(10),
        confidence=0.9999999,
        steps=100,
        budget=budget,
    )
    assert pair.count == used == budget - budget % 4
