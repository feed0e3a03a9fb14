"""From a feature vector back to samples that have it, where no gradient leads there: a search in latent space."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from retrace_pl.attacks.base import AttackContext, Reconstruction
from retrace_pl.attacks.selection import assemble, select_distribution
from retrace_pl.envs import CandidatePool
from retrace_pl.errors import RunError
from retrace_pl.searchers import CMAESSearcher, NullObserver, SearchObserver

__all__ = ["search_features"]


def search_features(
    context: AttackContext,
    features: Callable[[Tensor], Tensor],
    target: Tensor,
    centre: Tensor | None,
    *,
    spent: int,
    budget: int,
    k: int,
) -> Reconstruction:
    """Maximise ``cos(phi(G(z)) - c, target - c)`` in z by CMA-ES: for generators whose samples carry no gradient.

    The objective is that of `feature_inversion.invert_features`, with the same prior and the same queries.

    Args:
        context: Holds the generator, how latents are projected, the seed and the observer.
        features: phi: samples ``[n, ...]`` to ``[n, F]``.
        target: ``[F]``.
        centre: c ``[F]``; zero where absent.
        spent: Queries made before.
        budget: Samples to evaluate, exactly.
        k: Samples of the reconstruction, chosen among the best to differ from each other.

    Raises:
        RunError: The features are not finite.
    """

    @torch.no_grad()
    def cosines(inputs: Tensor) -> SimpleNamespace:
        found = features(inputs)
        wanted = target.to(found)
        offset = torch.zeros_like(wanted) if centre is None else centre.to(found)
        reached = torch.nn.functional.cosine_similarity(found - offset, (wanted - offset)[None], dim=1)
        if not bool(reached.isfinite().all()):
            raise RunError("hrec: the original model's features are not finite; look at its training")
        return SimpleNamespace(score=reached)

    core = context.core()
    core.scorer = cosines
    CMAESSearcher().search(core, budget, context.seed, _Later(context.observer or NullObserver(), spent))
    result = assemble(core, select_distribution(core, k, "diverse", context.seed), context.seed)
    order = result.scores.argsort(descending=True, stable=True)
    assert result.latents is not None
    result.inputs, result.scores, result.latents = result.inputs[order], result.scores[order], result.latents[order]
    result.queries += spent
    result.curve = [(queries + spent, best, mean) for queries, best, mean in result.curve]
    return result


class _Later:
    """Tells an observer about a search that began after some queries."""

    def __init__(self, observer: SearchObserver, spent: int) -> None:
        self._observer = observer
        self._spent = spent

    def on_start(self, budget: int) -> None:
        self._observer.on_start(self._spent + budget)

    def on_update(self, queries: int, pool: CandidatePool, scalars: dict[str, float]) -> None:
        self._observer.on_update(self._spent + queries, pool, scalars)

    def on_end(self) -> None:
        self._observer.on_end()
