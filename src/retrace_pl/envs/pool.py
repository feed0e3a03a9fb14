"""The candidate pool: every latent that was ever queried, with its score."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from retrace_pl.errors import InputError, RunError

__all__ = ["CandidatePool", "farthest_points"]

_FIRST_CAPACITY = 4096
_GROWTH = 1.5  # while growing, the old and the new block exist together: 1.5 keeps that peak below 2.5 x the data


class CandidatePool:
    """Every queried candidate as a compact float32 row (latent and score), in the order of the queries.

    Images are not kept: the generator makes them again when they are asked for. One million candidates of 64
    latent coordinates take 260 MB, and less than 500 MB while the storage grows.

    Ties: thousands of candidates reach the same score, often the maximum. Whenever a method has to choose among
    equal scores it does so uniformly at random with the ``seed`` it is given, never by position, so that early
    queries are not preferred; the same seed gives the same choice.

    Args:
        latent_dim: Length ``d`` of a latent.
        capacity: Rows to reserve at once (the query budget, where it is known); the pool grows beyond it if needed.
        tracked: How many of the best scores are kept up to date for :meth:`top_mean`.

    Example:
        >>> pool = CandidatePool(latent_dim=2)
        >>> pool.add(torch.eye(2), torch.tensor([0.25, 0.75]))
        >>> len(pool), pool.best, pool.top_k(1).tolist()
        (2, 0.75, [1])
    """

    def __init__(self, latent_dim: int, capacity: int | None = None, tracked: int = 64) -> None:
        if latent_dim < 1:
            raise InputError(f"latent_dim must be at least 1, got {latent_dim}")
        self._size = 0
        rows = max(1, _FIRST_CAPACITY if capacity is None else capacity)
        self._latents = torch.empty(rows, latent_dim, dtype=torch.float32)
        self._scores = torch.empty(rows, dtype=torch.float32)
        self._tracked = tracked
        self._leaders = torch.empty(0, dtype=torch.float32)

    def __len__(self) -> int:
        return self._size

    @property
    def latent_dim(self) -> int:
        """Length ``d`` of a latent."""
        return self._latents.shape[1]

    @property
    def latents(self) -> Tensor:
        """All latents ``[n, d]``, float32 on the CPU: a view, not a copy."""
        return self._latents[: self._size]

    @property
    def scores(self) -> Tensor:
        """All scores ``[n]``, float32 on the CPU: a view, not a copy."""
        return self._scores[: self._size]

    @property
    def best(self) -> float:
        """Highest score so far; minus infinity for an empty pool."""
        return float(self._leaders[0]) if len(self._leaders) else float("-inf")

    def top_mean(self, k: int = 64) -> float:
        """Mean of the ``k`` highest scores, without sorting the pool (``k`` at most ``tracked``)."""
        if k > self._tracked:
            raise InputError(f"top_mean follows the best {self._tracked} scores only, k={k} was asked for")
        return float(self._leaders[:k].mean()) if len(self._leaders) else float("-inf")

    def add(self, latents: Tensor, scores: Tensor) -> None:
        """Append candidates.

        Args:
            latents: ``[n, d]`` on any device.
            scores: ``[n]``, finite.

        Raises:
            InputError: The shapes do not fit.
            RunError: A score is not a finite number.
        """
        latents = latents.detach().to("cpu", torch.float32)
        scores = scores.detach().to("cpu", torch.float32)
        if latents.ndim != 2 or latents.shape[1] != self.latent_dim or scores.shape != latents.shape[:1]:
            raise InputError(
                f"the pool takes latents [n, {self.latent_dim}] and scores [n], "
                f"got {tuple(latents.shape)} and {tuple(scores.shape)}"
            )
        if not bool(torch.isfinite(scores).all()):
            raise RunError("the trace score of a candidate is not a finite number; check the models' outputs")
        end = self._size + len(scores)
        self._reserve(end)
        self._latents[self._size : end] = latents
        self._scores[self._size : end] = scores
        self._size = end
        merged = torch.cat([self._leaders, scores])
        self._leaders = merged.topk(min(self._tracked, len(merged))).values

    def _reserve(self, rows: int) -> None:
        if rows <= len(self._scores):
            return
        capacity = max(rows, int(len(self._scores) * _GROWTH))
        for name in ("_latents", "_scores"):
            old = getattr(self, name)
            new = torch.empty(capacity, *old.shape[1:], dtype=torch.float32)
            new[: self._size] = old[: self._size]
            setattr(self, name, new)
            del old

    def top_k(self, k: int, seed: int = 0) -> Tensor:
        """Indices of the ``k`` best candidates, best first; ties in seeded random order.

        Args:
            k: How many; the whole pool where it holds fewer.
            seed: Decides among equal scores.

        Returns:
            Row numbers, int64 ``[min(k, n)]``.
        """
        k = min(k, self._size)
        if k < 1:
            return torch.empty(0, dtype=torch.int64)
        scores = self.scores
        threshold = scores.topk(k).values[-1]
        above = (scores > threshold).nonzero().squeeze(1)
        tied = (scores == threshold).nonzero().squeeze(1)
        generator = torch.Generator().manual_seed(seed)
        above = above[torch.randperm(len(above), generator=generator)]
        above = above[scores[above].argsort(descending=True, stable=True)]
        tied = tied[torch.randperm(len(tied), generator=generator)[: k - len(above)]]
        return torch.cat([above, tied])

    def diverse_top_k(
        self,
        k: int,
        seed: int = 0,
        *,
        features: Callable[[Tensor], Tensor] | None = None,
        tolerance: float = 0.01,
        max_candidates: int = 512,
    ) -> Tensor:
        """Indices of ``k`` good candidates that lie far apart (greedy farthest point).

        The choice is made among the best ``M`` candidates, ``k <= M <= max_candidates``, where ``M`` is the largest
        number whose worst score is at most ``tolerance`` below the ``k``-th best one. So the mean score of the
        selection is never more than ``tolerance`` below that of the plain top ``k``.

        Args:
            k: How many; the whole pool where it holds fewer.
            seed: Decides among equal scores.
            features: Maps latents ``[m, d]`` to vectors ``[m, f]`` whose Euclidean distance counts (for instance the
                flattened images); ``None`` measures distances between latents.
            tolerance: Largest score given up, in units of the score (its range is [0, 1]).
            max_candidates: Upper bound of ``M``; ``k`` where that is larger.

        Returns:
            Row numbers, int64 ``[min(k, n)]``, in the order of selection: the best candidate first.
        """
        k = min(k, self._size)
        if k < 1:
            return torch.empty(0, dtype=torch.int64)
        candidates = self.top_k(max(k, max_candidates), seed)
        floor = self.scores[candidates[k - 1]] - tolerance
        candidates = candidates[self.scores[candidates] >= floor]
        latents = self.latents[candidates]
        points = latents if features is None else features(latents).detach().to("cpu", torch.float32).flatten(1)
        return candidates[farthest_points(points, k)]

    def state(self) -> dict[str, Tensor]:
        """The pool as ``{"latents": [n, d], "scores": [n]}``, ready for ``safetensors.torch.save_file``."""
        return {"latents": self.latents.contiguous(), "scores": self.scores.contiguous()}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> CandidatePool:
        """Rebuild a pool from :meth:`state`; the tensors are taken over, not copied, where they are float32.

        Raises:
            InputError: A tensor is missing or the shapes do not fit.
        """
        if not {"latents", "scores"} <= state.keys() or state["latents"].ndim != 2:
            raise InputError("not a candidate pool: expected the tensors latents [n, d] and scores [n]")
        latents, scores = (state[name].detach().to("cpu", torch.float32) for name in ("latents", "scores"))
        pool = cls(latents.shape[1], capacity=1)
        if scores.shape != latents.shape[:1]:
            raise InputError(f"not a candidate pool: {len(latents)} latents and scores of shape {tuple(scores.shape)}")
        pool._latents, pool._scores, pool._size = latents, scores, len(scores)
        pool._leaders = scores.topk(min(pool._tracked, len(scores))).values
        return pool


def farthest_points(points: Tensor, k: int) -> Tensor:
    """Greedy farthest-point selection, starting from the first point.

    Args:
        points: ``[m, f]``.
        k: How many to select, at most ``m``.

    Returns:
        Row numbers, int64 ``[k]``, in the order of selection. Duplicates are chosen only when nothing else is left.
    """
    if not 1 <= k <= len(points):
        raise InputError(f"cannot select {k} of {len(points)} points")
    chosen = torch.zeros(k, dtype=torch.int64)
    distance = (points - points[0]).square().sum(1)
    distance[0] = -1.0
    for step in range(1, k):
        chosen[step] = distance.argmax()
        distance = torch.minimum(distance, (points - points[chosen[step]]).square().sum(1))
        distance[chosen[: step + 1]] = -1.0
    return chosen
