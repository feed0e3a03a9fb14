"""Where the ascents towards inputs of high confidence begin."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from retrace_pl.attacks.base import AttackContext
from retrace_pl.attacks.inputs import Box, input_shape
from retrace_pl.errors import InputError
from retrace_pl.traces import ModelPair

__all__ = ["ProbeStarts", "Start"]

Start = Literal["public", "noise"]

_SHARE = 10
"""Looking at public inputs may take the budget over this."""

_BATCH = 512
"""Public inputs shown to the models at once."""


class ProbeStarts:
    """An endless supply of starts for every class.

    No class may start from inputs that f+ assigns to it already. Public data often lacks the deleted class, and its
    probes would then differ from all others by what public data shows, not by what was unlearned.

    Args:
        kind: ``public`` (public inputs that f+ assigns to other classes, those with the highest probability of this one
            first) or ``noise`` (N(0, 1), moved into the box).
        pair: Shown public inputs once, at most a tenth of the budget.
        context: Holds public inputs and the budget.
        random: CPU generator that everything is drawn from.
        box: Bounds of the noise.

    Attributes:
        classes: Number of classes.
        queries: What it took to set up.

    Raises:
        InputError: There are no public inputs to start from.
    """

    def __init__(self, kind: Start, pair: ModelPair, context: AttackContext, random: torch.Generator, box: Box) -> None:
        self.shape = input_shape(context)
        self.device = pair.device
        self.random = random
        self.box = box
        if kind == "noise":
            self.pool = self._noise(1)
        elif context.public is None or len(context.public) == 0:
            raise InputError("label_inference.start is public but there are no public inputs; set it to noise")
        else:
            rows = torch.randperm(len(context.public), generator=random)[: max(1, context.budget // _SHARE)]
            self.pool = context.public[rows.to(context.public.device)].to(self.device)
        self.queries = len(self.pool)
        probabilities = torch.cat([pair.outputs(part).original for part in torch.split(self.pool, _BATCH)])
        self.classes = probabilities.shape[1]
        self._orders = [] if kind == "noise" else [_order(probabilities, label) for label in range(self.classes)]
        self._taken = [0] * self.classes

    def draw(self, classes: Tensor) -> Tensor:
        """The next start ``[n, ...]`` of each named class ``[n]``; a class that has used all of its own begins anew."""
        if not self._orders:
            return self._noise(len(classes))
        rows = []
        for label in classes.tolist():
            order = self._orders[label]
            rows.append(order[self._taken[label] % len(order)])
            self._taken[label] += 1
        return self.pool[torch.tensor(rows, device=self.device)]

    def _noise(self, n: int) -> Tensor:
        values = torch.randn(n, *self.shape, generator=self.random)
        return (values if self.box is None else values.clamp(*self.box)).to(self.device)


def _order(probabilities: Tensor, label: int) -> list[int]:
    """Rows in the order in which a class starts from them."""
    ranked: list[int] = probabilities[:, label].argsort(descending=True, stable=True).tolist()
    assigned = probabilities.argmax(dim=1).tolist()
    return [row for row in ranked if assigned[row] != label] or ranked
