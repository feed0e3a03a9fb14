"""From a pool of candidates to a reconstruction."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from retrace_pl.attacks.base import Reconstruction
from retrace_pl.envs import CandidatePool, LatentCore
from retrace_pl.errors import InputError

__all__ = ["Selection", "assemble", "check_selection", "select_distribution", "select_instance"]

Selection = Literal["diverse", "top"]


def check_selection(top_k: int, selection: str) -> None:
    """Refuse settings that select nothing.

    Raises:
        InputError: ``top_k`` is below 1 or the selection is unknown.
    """
    if top_k < 1:
        raise InputError(f"attack.top_k must be at least 1, got {top_k}")
    if selection not in get_args(Selection):
        raise InputError(f"attack.selection must be one of {', '.join(get_args(Selection))}, got {selection!r}")


def select_instance(core: LatentCore, pool: CandidatePool, seed: int, limit: int = 1024) -> int:
    """Row of the best candidate.

    Where several share the best score (a saturated score is common), a random ``limit`` of them is generated and the
    most typical one is taken: the medoid, nearest in mean squared error to their mean.

    Args:
        core: Generates the candidates.
        pool: Where to choose.
        seed: Decides which of many equal candidates are looked at.
        limit: How many equal candidates are looked at.
    """
    best = pool.top_k(limit, seed)
    best = best[pool.scores[best] == pool.scores[best[0]]]
    if len(best) == 1:
        return int(best[0])
    points = core.points(pool.latents[best])
    return int(best[(points - points.mean(0)).square().sum(1).argmin()])


def select_distribution(
    core: LatentCore,
    top_k: int,
    selection: Selection,
    seed: int,
    *,
    tolerance: float = 0.01,
    max_candidates: int = 512,
    pool: CandidatePool | None = None,
) -> Tensor:
    """Rows of the candidates that stand for the deleted distribution, int64 ``[k]``.

    Choose before an instance is refined: the refinement's many near copies of one candidate score highest of all.

    Args:
        core: Problem after the search.
        top_k: Size of the distribution-level reconstruction; the pool where it is smaller.
        selection: ``top`` for the best, ``diverse`` for good ones that look different from each other.
        seed: Decides among equal scores.
        tolerance: Score that a diverse selection may give up.
        max_candidates: Number of candidates that a diverse selection chooses from, at most.
        pool: Where to choose; all candidates of the search by default.
    """
    pool = core.pool if pool is None else pool
    if selection == "top":
        return pool.top_k(top_k, seed)
    return pool.diverse_top_k(top_k, seed, features=core.points, tolerance=tolerance, max_candidates=max_candidates)


def assemble(core: LatentCore, rows: Tensor, seed: int, *, extra: tuple[Tensor, float] | None = None) -> Reconstruction:
    """Generate what was chosen from everything that ``core`` was asked.

    Args:
        core: Problem after the search.
        rows: Rows of the pool that make up the distribution, see :func:`select_distribution`.
        seed: Decides among equal scores.
        extra: Latent ``[1, d]`` and score of a refined instance, taken instead of the pool's best.
    """
    pool = core.pool
    if extra is None:
        row = select_instance(core, pool, seed)
        extra = pool.latents[row : row + 1].clone(), float(pool.scores[row])
    latents = pool.latents[rows].clone()
    return Reconstruction(
        instance=core.generate(extra[0]).cpu(),
        instance_score=extra[1],
        instance_latent=extra[0].cpu(),
        inputs=core.generate(latents).cpu(),
        scores=torch.as_tensor(pool.scores[rows]).clone(),
        latents=latents,
        pool=pool,
        queries=core.queries,
        curve=list(core.curve),
    )
