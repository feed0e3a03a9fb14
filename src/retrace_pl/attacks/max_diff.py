"""MaxDiff: the public inputs themselves, ranked by the trace."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from retrace_pl.attacks.base import Attack, AttackContext, NotApplicable, Reconstruction
from retrace_pl.attacks.selection import check_selection
from retrace_pl.envs import random_stream

__all__ = ["MaxDiff"]

_CURVE_POINTS = 100
_LEADERS = 64


class MaxDiff(Attack):
    """The public inputs on which the two models disagree most stand for the deleted data. No generator is used.

    The floor of every reconstruction attack: what it returns exists already, so it leaks which public inputs resemble
    the deleted ones, never a new one. Where the public set lacks the deleted class it can only return look-alikes.

    One query per input that is scored; where the budget is smaller than the public set, a random subset is. All are
    scored in one call, so that normalisers which work within the batch put them on one scale; equal scores are ordered
    at random. The observer is not told anything: there is no search to watch.

    Args:
        top_k: Size of the distribution-level reconstruction: the plain best, at most what was scored.
    """

    name: ClassVar[str] = "max_diff"

    def __init__(self, top_k: int = 64) -> None:
        check_selection(top_k, "top")
        self.top_k = top_k

    def reconstruct(self, context: AttackContext) -> Reconstruction:
        """Score public inputs, ``[n, ...]``, and return the best of them.

        Raises:
            NotApplicable: The context has no public inputs.
        """
        if context.public is None or len(context.public) == 0:
            raise NotApplicable("MaxDiff ranks public inputs, and there are none")
        order = torch.randperm(len(context.public), generator=random_stream(context.seed, "max_diff"))
        asked = order[: context.budget]
        inputs = context.public[asked.to(context.public.device)]
        scores = context.scorer(inputs).score.detach().to("cpu", torch.float32)
        best = scores.argsort(descending=True, stable=True)[: self.top_k]
        chosen = inputs[best.to(inputs.device)].detach().cpu()
        return Reconstruction(
            instance=chosen[:1].clone(),
            instance_score=float(scores[best[0]]),
            inputs=chosen,
            scores=scores[best],
            queries=len(asked),
            curve=_curve(scores),
            facts={
                "generator": None,
                "source": "public inputs",
                "public_inputs": len(context.public),
                "scored": len(asked),
                "rows": asked[best].tolist(),
            },
        )


def _curve(scores: Tensor) -> list[tuple[int, float, float]]:
    """(queries, best score, mean of the best 64 scores) in the order of the queries, at about 100 points."""
    every = max(1, len(scores) // _CURVE_POINTS)
    points = [*range(every, len(scores), every), len(scores)]
    leaders = (scores[:n].topk(min(_LEADERS, n)).values for n in points)
    return [(n, float(best[0]), float(best.mean())) for n, best in zip(points, leaders, strict=True)]
