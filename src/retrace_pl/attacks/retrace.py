"""The ReTrace attack: search the generator's latent space for what the two models disagree about."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from retrace_pl.attacks.base import Attack, AttackContext, Reconstruction
from retrace_pl.attacks.by_class import ByClass, scorers_by_class
from retrace_pl.attacks.selection import (
    Selection,
    assemble,
    check_selection,
    select_distribution,
    select_instance,
)
from retrace_pl.envs import CandidatePool, LatentCore, random_stream
from retrace_pl.errors import InputError, NotApplicable
from retrace_pl.searchers import Searcher

__all__ = ["ReTrace"]


class ReTrace(Attack):
    """ReTrace: a searcher maximises the trace score in latent space; the best candidates are the reconstruction.

    Source: ReTrace (ICLR 2026). Instance level: the best candidate, optionally refined by a local search. Distribution
    level: the best ``top_k``, by default chosen to differ from each other. Refinement queries are part of the budget.
    A directional score of several deleted classes is searched for each of them, with equal shares of the budget and of
    the reconstruction, whose candidates then alternate between the classes.

    Args:
        searcher: Who searches; the context's searcher where none is given.
        top_k: Size of the distribution-level reconstruction.
        selection: ``diverse`` (farthest point among the best candidates' images) or ``top`` (the plain best).
        tolerance: Score that the diverse selection may give up against the plain best.
        oversampling: The diverse selection chooses from the best ``oversampling * top_k`` candidates, at most. More of
            them make it more diverse and its members less typical.
        refinement_steps: Rounds of local search around the best candidate; 0 skips it.
        refinement_population: Queries per round.
        refinement_std: Standard deviation of the first round's steps, halved four times over the rounds.

    Example:
        >>> from retrace_pl.envs.toys import toy_core
        >>> from retrace_pl.searchers import CEMSearcher
        >>> toy = toy_core()
        >>> context = AttackContext(pair=None, scorer=toy.scorer, generator=toy.generator, budget=512)
        >>> found = ReTrace(CEMSearcher(population=128), top_k=16).reconstruct(context)
        >>> len(found.inputs), len(found.pool), found.queries
        (16, 512, 512)
    """

    name: ClassVar[str] = "retrace"

    def __init__(
        self,
        searcher: Searcher | None = None,
        top_k: int = 64,
        selection: Selection = "diverse",
        tolerance: float = 0.01,
        oversampling: int = 8,
        refinement_steps: int = 0,
        refinement_population: int = 32,
        refinement_std: float = 0.3,
    ) -> None:
        check_selection(top_k, selection)
        if oversampling < 1 or tolerance < 0:
            raise InputError("attack: oversampling must be at least 1 and tolerance not negative")
        if refinement_steps < 0 or refinement_population < 1 or refinement_std <= 0:
            raise InputError(
                "attack: refinement_steps must be at least 0, refinement_population at least 1, refinement_std positive"
            )
        self.searcher = searcher
        self.top_k = top_k
        self.selection: Selection = selection
        self.tolerance = tolerance
        self.oversampling = oversampling
        self.refinement_steps = refinement_steps
        self.refinement_population = refinement_population
        self.refinement_std = refinement_std

    def reconstruct(self, context: AttackContext) -> Reconstruction:
        """Search, refine within the same budget, and select.

        Raises:
            InputError: There is no searcher.
            NotApplicable: Refinement leaves no query for the search, or fewer than the searcher needs.
        """
        searcher = self.searcher if self.searcher is not None else context.searcher
        if searcher is None:
            raise InputError("attack.searcher: ReTrace needs a searcher; give one, for example RandomSearcher")
        refinement = self.refinement_steps * self.refinement_population
        if context.budget <= refinement:
            raise NotApplicable(
                f"refinement takes {refinement} of {context.budget} queries; raise the budget or lower "
                "attack.refinement_steps"
            )
        core = context.core()
        search = ByClass(searcher, scorers_by_class(context.scorer))
        search.search(core, context.budget - refinement, context.seed, context.observer)
        rows = search.select(core.pool, self.top_k, lambda pool, k: self.choose(core, pool, k, context.seed))
        extra = self._refine(core, search, context.budget, context.seed) if refinement else None
        result = assemble(core, rows, context.seed, extra=extra)
        result.policy = searcher.policy_state()
        return result

    def choose(self, core: LatentCore, pool: CandidatePool, k: int, seed: int) -> Tensor:
        """Row numbers ``[k]`` of a pool's candidates that this attack would take for the deleted distribution.

        Args:
            core: Makes inputs of the pool's latents, to tell how much they differ.
            pool: Where to choose.
            k: How many; the pool where it holds fewer.
            seed: Decides among equal scores.
        """
        most = self.oversampling * k
        return select_distribution(
            core, k, self.selection, seed, tolerance=self.tolerance, max_candidates=most, pool=pool
        )

    def _refine(self, core: LatentCore, search: ByClass, budget: int, seed: int) -> tuple[Tensor, float]:
        """Local search around the best candidate, under the same access and counted in the same budget.

        A round keeps its best candidate only where that raises the score, so a saturated instance stays as it is.
        """
        row = select_instance(core, core.pool, seed)
        latent, score = core.pool.latents[row : row + 1].clone(), float(core.pool.scores[row])
        random = random_stream(seed, "refinement")
        core.scorer = search.scorer_of(row)
        core.extend(budget)
        for step in range(self.refinement_steps):
            std = self.refinement_std * 0.5 ** (4 * step / self.refinement_steps)
            noise = torch.randn(self.refinement_population, core.latent_dim, generator=random)
            proposals = core.settings.project(latent + std * noise)
            scores = core.evaluate(proposals).cpu()
            if float(scores.max()) > score:
                best = int(scores.argmax())
                latent, score = proposals[best : best + 1], float(scores[best])
        return latent, score
