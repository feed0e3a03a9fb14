"""A search for each deleted class: one alone may end at a single class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from retrace_pl.envs import CandidatePool, LatentCore
from retrace_pl.searchers import MixtureSearcher, Searcher
from retrace_pl.traces import DirectionalScorer

__all__ = ["ByClass", "interleave", "scorers_by_class", "shares"]


def scorers_by_class(scorer: Callable[[Tensor], Any]) -> tuple[Callable[[Tensor], Any], ...]:
    """The scorers to search with, one for each deleted class of a directional score; any other score alone."""
    return scorer.by_class() if isinstance(scorer, DirectionalScorer) else (scorer,)


class ByClass(MixtureSearcher):
    """The same searcher once with each of several scorers, with equal shares of the budget.

    Args:
        searcher: Who searches.
        scorers: What it searches with, in order.

    Attributes:
        starts: After a search, the first row of every scorer's candidates in the pool.
    """

    name: ClassVar[str] = "by_class"

    def __init__(self, searcher: Searcher, scorers: Sequence[Callable[[Tensor], Any]]) -> None:
        super().__init__([searcher] * len(scorers))
        self.scorers = list(scorers)
        self.starts: list[int] = []

    def _enter(self, core: LatentCore, place: int) -> None:
        if place == 0:
            self.starts = []
        self.starts.append(len(core.pool))
        core.scorer = self.scorers[place]

    def select(self, pool: CandidatePool, top_k: int, choose: Callable[[CandidatePool, int], Tensor]) -> Tensor:
        """Row numbers ``[k]`` of a pool that a search returned: equal shares of every scorer's candidates, in turn.

        Args:
            pool: All candidates.
            top_k: How many rows in all; where there are fewer candidates, those.
            choose: Takes the candidates of one scorer and a number; gives row numbers, the best first.
        """
        ends = [*self.starts[1:], len(pool)]
        chosen = []
        for start, end, size in zip(self.starts, ends, shares(top_k, len(ends)), strict=True):
            part = CandidatePool.from_state({"latents": pool.latents[start:end], "scores": pool.scores[start:end]})
            chosen.append(start + choose(part, size))
        return interleave(chosen)

    def scorer_of(self, row: int) -> Callable[[Tensor], Any]:
        """The scorer that a row of the pool was found with."""
        return self.scorers[sum(start <= row for start in self.starts) - 1]


def shares(total: int, parts: int) -> list[int]:
    """``total`` split into ``parts`` numbers that differ by one at most, the larger ones first."""
    return [total // parts + (place < total % parts) for place in range(parts)]


def interleave(parts: Sequence[Tensor]) -> Tensor:
    """Row numbers ``[n]`` of several lists, taken in turn, so that the head of the result shows all of them.

    Args:
        parts: Row numbers, each ``[n_i]``.
    """
    turns = torch.cat([torch.arange(len(part)) for part in parts])
    return torch.cat(list(parts))[turns.argsort(stable=True)]
