"""Prior top-k: the best of many draws from the generator, without any search."""

from __future__ import annotations

from typing import ClassVar

from retrace_pl.attacks.base import Attack, AttackContext, Reconstruction
from retrace_pl.attacks.retrace import ReTrace
from retrace_pl.searchers import RandomSearcher

__all__ = ["PriorTopK"]


class PriorTopK(Attack):
    """The whole budget is drawn from the latent prior, and the ``top_k`` highest scores are the reconstruction.

    What the trace is worth without any search. The draws and their scores are those of random search with the same
    seed, ``ReTrace(RandomSearcher())``; the difference is the selection: ReTrace gives up a little score for
    candidates that differ from each other, this takes the plain best, duplicates included. The prior-only control
    (``prior_only``) in turn draws the same and looks at no score at all.

    Args:
        top_k: Size of the distribution-level reconstruction.
        batch_size: Candidates per evaluation.
    """

    name: ClassVar[str] = "prior_top_k"

    def __init__(self, top_k: int = 64, batch_size: int = 512) -> None:
        self.top_k = top_k
        self.batch_size = batch_size
        self._attack = ReTrace(RandomSearcher(batch_size), top_k, selection="top")

    def reconstruct(self, context: AttackContext) -> Reconstruction:
        """Draw, score and take the best."""
        return self._attack.reconstruct(context)
