"""Inputs that the original model assigns to a chosen class with near certainty, found by ascending its confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from retrace_pl.models import Behaviour
from retrace_pl.traces import ModelPair

__all__ = ["Climber", "CoordinateAdam", "Probes", "SignedAscent", "climb"]

_SMALLEST = 1e-30
"""Probabilities are not taken smaller than this before their logarithm."""

_BATCH = 1024
"""Candidates evaluated at once."""


@dataclass
class Probes:
    """The most confident point of every ascent.

    Args:
        inputs: ``[n, ...]``.
        classes: The class that each ascent aimed at, ``[n]``.
        confidence: Probability of that class under f+, ``[n]``.
        unlearned: The same under f-, ``[n]``; NaN where f- was not asked.
    """

    inputs: Tensor
    classes: Tensor
    confidence: Tensor
    unlearned: Tensor

    @classmethod
    def none(cls, shape: tuple[int, ...], device: torch.device) -> Probes:
        """No probes of inputs of this shape."""
        empty = torch.empty(0, device=device)
        return cls(torch.empty(0, *shape, device=device), empty.long(), empty, empty)

    def subset(self, rows: Tensor) -> Probes:
        """Some of the probes, by number or by mask."""
        return Probes(self.inputs[rows], self.classes[rows], self.confidence[rows], self.unlearned[rows])

    def joined(self, other: Probes) -> Probes:
        """These probes and then the others."""
        return Probes(
            torch.cat([self.inputs, other.inputs]),
            torch.cat([self.classes, other.classes]),
            torch.cat([self.confidence, other.confidence]),
            torch.cat([self.unlearned, other.unlearned]),
        )


@dataclass(frozen=True)
class ClimbStep:
    """One step of several ascents, all ``[n]`` or ``[n, ...]``.

    Args:
        points: What was evaluated; where several points were, the most confident.
        confidence: Probability of the aimed class at the points under f+.
        unlearned: The same under f-; NaN where it was not asked.
        moved: Where the ascents go on.
    """

    points: Tensor
    confidence: Tensor
    unlearned: Tensor
    moved: Tensor


class Climber(Protocol):
    """How to raise a class's confidence by one step."""

    cost: int
    """Queries that one step of one ascent takes."""

    def start(self, inputs: Tensor) -> None:
        """Forget earlier ascents; new ones begin at these inputs ``[n, ...]``."""
        ...

    def step(self, rows: Tensor, inputs: Tensor, classes: Tensor) -> ClimbStep:
        """Evaluate and move some of the ascents.

        Args:
            rows: Which of the started ascents, ``[m]``.
            inputs: Where they are, ``[m, ...]``.
            classes: What they aim at, ``[m]``.
        """
        ...


class SignedAscent:
    """White-box: Adam on the sign of the input gradient of the class's cross-entropy under f+.

    The sign matters. The gradient itself vanishes as the confidence nears 1, long before 0.9995 is reached.

    Args:
        network: f+.
        behaviour: How it is run.
        lr: Step size, in the inputs' units.
        box: Bounds of the inputs; None for none.
    """

    cost = 1

    def __init__(
        self, network: nn.Module, behaviour: Behaviour, lr: float = 0.05, box: tuple[float, float] | None = (0.0, 1.0)
    ) -> None:
        self.network = network
        self.behaviour = behaviour
        self.lr = lr
        self.box = box

    def start(self, inputs: Tensor) -> None:
        """Begin at these inputs."""
        self._moments = torch.zeros_like(inputs), torch.zeros_like(inputs)
        self._steps = torch.zeros(len(inputs), device=inputs.device)

    def step(self, rows: Tensor, inputs: Tensor, classes: Tensor) -> ClimbStep:
        """One forward and one backward pass of f+ for every ascent."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = self.behaviour.differentiable(self.network, inputs)
            outputs = self.behaviour.forward(self.network, inputs, leaf)
            (gradient,) = torch.autograd.grad(self.behaviour.losses(outputs, classes).sum(), leaf)
        confidence = _of_class(self.behaviour.probabilities(outputs.detach()), classes)
        update = _adam(self._moments, self._steps, rows, gradient.sign().to(inputs.dtype))
        moved = _clamp(inputs - self.lr * update, self.box)
        return ClimbStep(inputs, confidence, torch.full_like(confidence, torch.nan), moved)


class CoordinateAdam:
    """Black-box: zeroth-order coordinate Adam (ZOO) on output probabilities.

    A step estimates the slope along some random coordinates by symmetric differences and moves along these alone. What
    rises is the log-probability of the class minus that of the strongest other one, whose slope does not vanish near
    certainty. The evaluated neighbours are probes too: they differ from the point by ``difference`` in one coordinate.
    For images a coordinate is a square of pixels, the paper's reduction of the attack space.
    Source: Chen et al., "ZOO" (AISec 2017), algorithm 2 and section 3.4.

    Args:
        pair: Asked for the probabilities of both models.
        shape: Shape of one input.
        coordinates: Coordinates that one step looks at, all if there are fewer; each costs two queries.
        block: Side of the squares in pixels, within one channel; only for inputs ``[C, H, W]``.
        difference: h, the distance of the two evaluations from the point, which stay within the box.
        lr: Step size, in the inputs' units.
        box: Bounds of the inputs; None for none.
        random: CPU generator that draws the coordinates.
    """

    def __init__(
        self,
        pair: ModelPair,
        shape: tuple[int, ...],
        coordinates: int,
        block: int,
        difference: float,
        lr: float,
        box: tuple[float, float] | None,
        random: torch.Generator,
    ) -> None:
        self.pair = pair
        self.groups = _groups(shape, block).to(pair.device)
        self.size = int(self.groups.max()) + 1
        self.count = min(coordinates, self.size)
        self.cost = 2 * self.count
        self.difference = difference
        self.lr = lr
        self.box = box
        self.random = random

    def start(self, inputs: Tensor) -> None:
        """Begin at these inputs."""
        zeros = torch.zeros(len(inputs), self.size, device=inputs.device, dtype=inputs.dtype)
        self._moments = zeros, zeros.clone()
        self._steps = zeros.clone()

    def step(self, rows: Tensor, inputs: Tensor, classes: Tensor) -> ClimbStep:
        """Two evaluations for each coordinate of every ascent."""
        flat = inputs.flatten(1)
        n = len(flat)
        chosen = torch.rand(n, self.size, generator=self.random).argsort(dim=1)[:, : self.count].to(flat.device)
        masks = (self.groups == chosen[:, :, None]).to(flat)  # [n, count, numbers of an input]
        offsets = self.difference * masks
        up, down = _clamp(flat[:, None] + offsets, self.box), _clamp(flat[:, None] - offsets, self.box)
        distance = (up - down).sum(dim=2) / masks.sum(dim=2)  # 2 h, less at the bounds of the box
        asked = torch.cat([up, down], dim=1).view(-1, *inputs.shape[1:])
        probabilities = self.pair.outputs(asked)
        repeated = classes.repeat_interleave(self.cost)
        confidence = _of_class(probabilities.original, repeated).view(n, -1)
        unlearned = _of_class(probabilities.unlearned, repeated).view(n, -1)
        values = _margin(probabilities.original, repeated).view(n, 2, self.count)
        slopes = ((values[:, 0] - values[:, 1]) / distance).to(flat)
        update = _adam(self._moments, self._steps, (rows[:, None].expand_as(chosen), chosen), slopes)
        moved = flat + self.lr * (update[:, :, None] * masks).sum(dim=1)
        best = confidence.argmax(dim=1)
        picked = torch.arange(n, device=flat.device), best
        return ClimbStep(
            asked.view(n, -1, *inputs.shape[1:])[picked],
            confidence[picked],
            unlearned[picked],
            _clamp(moved, self.box).view_as(inputs),
        )


def climb(
    climber: Climber, starts: Tensor, classes: Tensor, *, confidence: float, steps: int, budget: int
) -> tuple[Probes, int]:
    """Raise each start's confidence until it suffices, for a number of steps or as long as the budget lasts.

    Args:
        climber: How to move.
        starts: ``[n, ...]``.
        classes: What each of them aims at, ``[n]``.
        confidence: An ascent that reaches this is done.
        steps: Most steps of one ascent.
        budget: Queries, never exceeded; where it does not last for all, the first ascents go on.

    Returns:
        The most confident point of every ascent that the budget allowed to begin, and the queries used.
    """
    inputs = starts.clone()
    empty = torch.full((len(starts),), torch.nan, device=starts.device)
    found = Probes(starts.clone(), classes, torch.full_like(empty, -1.0), empty)
    used = 0
    climber.start(inputs)
    for _ in range(steps):
        unfinished = (found.confidence < confidence).nonzero().flatten()[: (budget - used) // climber.cost]
        if len(unfinished) == 0:
            break
        used += len(unfinished) * climber.cost
        for rows in torch.split(unfinished, max(1, _BATCH // climber.cost)):
            step = climber.step(rows, inputs[rows], classes[rows])
            inputs[rows] = step.moved
            better = step.confidence > found.confidence[rows]
            found.inputs[rows[better]] = step.points[better]
            found.confidence[rows[better]] = step.confidence[better].to(found.confidence)
            found.unlearned[rows[better]] = step.unlearned[better].to(found.unlearned)
    return found.subset(found.confidence >= 0), used


def _groups(shape: tuple[int, ...], block: int) -> Tensor:
    """The coordinate that each number of a flat input belongs to, ``[numbers]``."""
    if len(shape) != 3:
        return torch.arange(math.prod(shape))
    channels, height, width = (torch.arange(side) for side in shape)
    across = -(-shape[2] // block)
    down = -(-shape[1] // block)
    grid = (channels[:, None, None] * down + height[:, None] // block) * across + width // block
    return grid.flatten()


def _adam(
    moments: tuple[Tensor, Tensor], steps: Tensor, where: Tensor | tuple[Tensor, Tensor], gradient: Tensor
) -> Tensor:
    """Adam's update, without the learning rate, of the chosen entries; the moments and counts change in place."""
    first, second = moments
    steps[where] += 1
    first[where] = 0.9 * first[where] + 0.1 * gradient
    second[where] = 0.999 * second[where] + 0.001 * gradient.square()
    count = steps[where]
    count = count.view(*count.shape, *(1,) * (gradient.ndim - count.ndim))
    scale = (second[where] / (1 - 0.999**count)).sqrt()
    return torch.as_tensor(first[where] / (1 - 0.9**count) / (scale + 1e-8))


def _of_class(probabilities: Tensor, classes: Tensor) -> Tensor:
    return probabilities.gather(1, classes[:, None]).flatten()


def _margin(probabilities: Tensor, classes: Tensor) -> Tensor:
    """Log-probability of the class minus that of the strongest other one, ``[n]``."""
    logs = probabilities.clamp_min(_SMALLEST).log()
    others = logs.scatter(1, classes[:, None], -torch.inf)
    return _of_class(logs, classes) - others.amax(dim=1)


def _clamp(inputs: Tensor, box: tuple[float, float] | None) -> Tensor:
    return inputs if box is None else inputs.clamp(*box)
