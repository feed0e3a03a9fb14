"""What every searcher has in common, and who may watch it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from retrace_pl.envs import CandidatePool, LatentCore
from retrace_pl.errors import RunError

__all__ = ["NullObserver", "PolicyState", "SearchObserver", "Searcher"]

PolicyState = tuple[dict[str, Tensor], dict[str, Any]]
"""Weights of a policy and the plain (JSON) settings to rebuild it from."""


@runtime_checkable
class SearchObserver(Protocol):
    """Watches a search: progress bars and TensorBoard writers. It must not change anything."""

    def on_start(self, budget: int) -> None:
        """The search begins with this query budget."""

    def on_update(self, queries: int, pool: CandidatePool, scalars: dict[str, float]) -> None:
        """Some queries were made.

        Args:
            queries: Queries so far.
            pool: All candidates so far; empty where an attack moves inputs and no latents.
            scalars: Named numbers for the log.
        """

    def on_end(self) -> None:
        """The search is over, also after an error."""


class NullObserver:
    """Watches nothing."""

    def on_start(self, budget: int) -> None:
        """Do nothing."""

    def on_update(self, queries: int, pool: CandidatePool, scalars: dict[str, float]) -> None:
        """Do nothing."""

    def on_end(self) -> None:
        """Do nothing."""


class Searcher(ABC):
    """Moves in latent space to find candidates with a high trace score within a query budget.

    Every searcher uses the whole budget and not one query more, so that searchers can be compared.
    """

    name: ClassVar[str] = "searcher"

    def search(
        self, core: LatentCore, budget: int, seed: int = 0, observer: SearchObserver | None = None
    ) -> CandidatePool:
        """Search from scratch.

        Args:
            core: The problem; its candidates and counts are cleared first. ``core.curve`` holds the result curve
                (queries, best score, mean of the best 64) at about 100 points afterwards.
            budget: Queries to use, exactly.
            seed: Seed of everything random in the search.
            observer: Watches the search.

        Returns:
            Every candidate that was queried, in order.

        Raises:
            NotApplicable: The budget is too small for the searcher's settings.
            RunError: The searcher did not use exactly the budget.
        """
        watcher = observer if observer is not None else NullObserver()
        core.restart(budget, seed)
        watcher.on_start(budget)
        try:
            self._search(core, budget, seed, watcher)
            watcher.on_update(core.queries, core.pool, core.scalars())
        finally:
            watcher.on_end()
        if core.queries != budget:
            raise RunError(
                f"{type(self).__name__} used {core.queries} of {budget} queries; a searcher must use them all"
            )
        return core.pool

    @abstractmethod
    def _search(self, core: LatentCore, budget: int, seed: int, observer: SearchObserver) -> None:
        """Spend the whole budget through ``core.evaluate`` or ``core.step``."""

    def policy_state(self) -> PolicyState | None:
        """The policy of the last search as weights and JSON settings; ``None`` for searchers without one."""
        return None
