"""The frame of every attack: what it may see, and what it hands back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from retrace_pl.envs import CandidatePool, LatentCore, LatentSettings
from retrace_pl.searchers import PolicyState, Searcher, SearchObserver
from retrace_pl.traces import ModelPair

__all__ = ["Attack", "AttackContext", "Reconstruction"]


@dataclass
class AttackContext:
    """Everything an attacker has. It never holds deleted, retained or evaluation data.

    Args:
        pair: Both models behind their access level.
        scorer: Fitted trace score: inputs ``[n, ...]`` to an object whose ``score`` is ``[n]`` in [0, 1].
        generator: Frozen generator, trained on public data only.
        latent: How actions become latents and rewards.
        public: Public inputs ``[n, ...]``, for attacks that use them.
        budget: Queries (candidates evaluated by both models), refinement included.
        seed: Seed of everything random in the attack.
        observer: Watches the search.
        searcher: Who searches, for attacks that were given none of their own.
        probe: Optional look at the current candidates for the log; it does not influence the attack.
    """

    pair: ModelPair | None
    scorer: Callable[[Tensor], Any]
    generator: nn.Module
    latent: LatentSettings = field(default_factory=LatentSettings)
    public: Tensor | None = None
    budget: int = 20480
    seed: int = 0
    observer: SearchObserver | None = None
    searcher: Searcher | None = None
    probe: Callable[[Tensor], dict[str, float]] | None = None

    def core(self) -> LatentCore:
        """A fresh latent-space search problem over this context."""
        return LatentCore(self.generator, self.scorer, self.latent, self.seed, probe=self.probe)


@dataclass
class Reconstruction:
    """What an attack believes the deleted data looked like.

    Args:
        instance: Best single guess ``[1, ...]``.
        instance_score: Its score.
        instance_latent: Its latent ``[1, d]``.
        inputs: Guess of the distribution, ``[k, ...]``.
        scores: Their scores ``[k]``.
        latents: Their latents ``[k, d]``.
        pool: Every queried candidate.
        queries: Queries used.
        curve: (queries, best score, mean of the best 64 scores) at about 100 points.
        policy: Weights and JSON settings of the trained policy, where there is one.
    """

    instance: Tensor
    instance_score: float
    instance_latent: Tensor
    inputs: Tensor
    scores: Tensor
    latents: Tensor
    pool: CandidatePool
    queries: int
    curve: list[tuple[int, float, float]]
    policy: PolicyState | None = None


class Attack(ABC):
    """Reconstructs deleted data from what an :class:`AttackContext` holds."""

    name: ClassVar[str] = "attack"

    @abstractmethod
    def reconstruct(self, context: AttackContext) -> Reconstruction:
        """Run the attack; every tensor of the result lies on the CPU."""
