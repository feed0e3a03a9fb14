"""Several searchers that share one budget and one pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from retrace_pl.envs import LatentCore
from retrace_pl.errors import InputError, NotApplicable
from retrace_pl.searchers.base import PolicyState, Searcher, SearchObserver

__all__ = ["MixtureSearcher"]


class MixtureSearcher(Searcher):
    """Independent searches one after the other, each from its own start, with equal shares of the budget.

    A single policy that converges finds one region of latent space. Several that start from different seeds find
    several, and the pool holds the candidates of all; the price is a smaller budget for each.

    Args:
        searchers: Who searches, in order. To repeat one, list it several times; every place has a seed of its own.

    Raises:
        InputError: There are no searchers.
    """

    name: ClassVar[str] = "mixture"

    def __init__(self, searchers: Sequence[Searcher]) -> None:
        if not searchers:
            raise InputError("searcher.searchers: a mixture needs at least one searcher")
        self.searchers = list(searchers)

    def _search(self, core: LatentCore, budget: int, seed: int, observer: SearchObserver) -> None:
        count, start = len(self.searchers), core.queries
        if budget - start < count:
            raise NotApplicable(f"a budget of {budget - start} queries cannot be shared by {count} searchers; raise it")
        for place, searcher in enumerate(self.searchers):
            end = start + (budget - start) * (place + 1) // count
            own = seed if place == 0 else int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
            core.extend(end)
            core.seed(own)
            self._enter(core, place)
            searcher._search(core, end, own, observer)
        core.extend(budget)

    def _enter(self, core: LatentCore, place: int) -> None:
        """What has to be done before the search of this place begins; nothing here."""

    def policy_state(self) -> PolicyState | None:
        """The policy of the last searcher; ``None`` where it has none."""
        return self.searchers[-1].policy_state()
