"""The frame of every attack: what it may see, and what it hands back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from retrace_pl.envs import CandidatePool, LatentCore, LatentSettings
from retrace_pl.errors import NotApplicable
from retrace_pl.searchers import PolicyState, Searcher, SearchObserver
from retrace_pl.traces import ModelPair

__all__ = [
    "Attack",
    "AttackContext",
    "Finding",
    "InferenceAttack",
    "NotApplicable",
    "Reconstruction",
    "Shadow",
    "Truth",
]


@dataclass(frozen=True)
class Shadow:
    """An unlearning the attacker carried out himself, on public records alone, so that its truth is known.

    Args:
        pair: The shadow models before and after, at the audited access level.
        deleted: Public inputs ``[n, ...]`` that the first shadow model was trained on and the second has forgotten.
        retained: Public inputs ``[m, ...]`` that both were trained on.
        unseen: Public inputs ``[u, ...]`` of the deleted kind (the same classes) that neither was trained on.
        unseen_retained: Public inputs ``[v, ...]`` of the retained kind that neither was trained on.
    """

    pair: ModelPair
    deleted: Tensor
    retained: Tensor
    unseen: Tensor
    unseen_retained: Tensor


@dataclass(frozen=True)
class Truth:
    """What an inference is judged by. An attack never sees it.

    Args:
        deleted: The deleted records ``[n, ...]``.
        unseen: Records ``[m, ...]`` of the same classes that no model saw; may be empty.
        deleted_classes: Classes deleted as a whole; empty after a deletion of single records.
    """

    deleted: Tensor
    unseen: Tensor
    deleted_classes: tuple[int, ...]


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
        shadow: An unlearning of the attacker's own, for attacks that learn from one (``needs_shadow``).
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
    shadow: Shadow | None = None

    def core(self) -> LatentCore:
        """A fresh latent-space search problem over this context."""
        return LatentCore(self.generator, self.scorer, self.latent, self.seed, probe=self.probe)


@dataclass
class Reconstruction:
    """What an attack believes the deleted data looked like.

    Args:
        instance: Best single guess ``[1, ...]``.
        instance_score: Its score.
        inputs: Guess of the distribution, ``[k, ...]``.
        scores: Their scores ``[k]``, each higher where the attack is surer; comparable within one attack only.
        queries: Queries used.
        curve: (queries, best score, mean of the best 64 scores) at about 100 points; empty for attacks without a
            search.
        instance_latent: Latent ``[1, d]`` of the instance, for attacks in latent space.
        latents: Latents ``[k, d]`` of the inputs, for attacks in latent space.
        pool: Every queried candidate, for attacks in latent space.
        policy: Weights and JSON settings of the trained policy, where there is one.
        facts: Further plain (JSON) facts for the record, such as an inferred label or the cost that was reached.
    """

    instance: Tensor
    instance_score: float
    inputs: Tensor
    scores: Tensor
    queries: int
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    instance_latent: Tensor | None = None
    latents: Tensor | None = None
    pool: CandidatePool | None = None
    policy: PolicyState | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class Attack(ABC):
    """Reconstructs deleted data from what an :class:`AttackContext` holds."""

    name: ClassVar[str] = "attack"
    needs_shadow: ClassVar[bool] = False

    @abstractmethod
    def reconstruct(self, context: AttackContext) -> Reconstruction:
        """Run the attack within ``context.budget`` queries; every tensor of the result lies on the CPU.

        Raises:
            NotApplicable: The pair gives the attack nothing to work on, or the budget is too small for it.
            AccessError: The attack needs a higher access level.
        """


@dataclass
class Finding:
    """What an inference attack concludes: an answer instead of pictures.

    Args:
        answer: Plain (JSON) facts, such as the inferred class and the evidence for it.
        queries: Queries used.
        tensors: What judging the answer needs, such as the weights of a fitted membership classifier.
    """

    answer: dict[str, Any]
    queries: int
    tensors: dict[str, Tensor] = field(default_factory=dict)


class InferenceAttack(ABC):
    """Infers a property of what was deleted (its class, the membership of a record) without reconstructing it."""

    name: ClassVar[str] = "inference"
    needs_shadow: ClassVar[bool] = False

    @abstractmethod
    def infer(self, context: AttackContext) -> Finding:
        """Run the attack within ``context.budget`` queries; every tensor of the result lies on the CPU.

        Raises:
            NotApplicable: The pair gives the attack nothing to work on, or the budget is too small for it.
            AccessError: The attack needs a higher access level.
        """

    @abstractmethod
    def judge(self, finding: Finding, pair: ModelPair, truth: Truth) -> dict[str, Any]:
        """Compare a finding with the truth, as plain (JSON) facts: ``correct``, ``auroc``, ...

        Args:
            finding: What :meth:`infer` returned, in this process or an earlier one.
            pair: The audited pair.
            truth: What was deleted.
        """
