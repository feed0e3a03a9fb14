"""Gradient ascent on the trace score, through the generator and both models."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from retrace_pl.envs import LatentCore, random_stream
from retrace_pl.errors import InputError, NotApplicable, RunError
from retrace_pl.searchers.base import Searcher, SearchObserver
from retrace_pl.traces import DifferentiableScorer

__all__ = ["GradientAscentSearcher", "score_gradient"]


class GradientAscentSearcher(Searcher):
    """Adam on the latents of several starts at once, along the exact gradient of the score; white-box only.

    The bound that white-box access sets: every other searcher has to guess the direction that this one computes, so
    it is no fair rival of black-box searchers. Each start climbs to a local maximum of its own, which keeps the
    candidates apart; a searcher that pools what it learned can still find a higher single peak. A query is one
    candidate evaluated by both models, as everywhere; the backward passes that give its gradient are not counted as
    queries of their own.

    All three signals are climbed. The gradient signal is itself a derivative, so climbing it needs the models' second
    derivatives; where a model has an operation without one, ``second_order=False`` climbs the prediction and loss
    signals alone, while candidates are still scored, kept and selected by the whole score. Where the score is flat
    (clipped, or a rank within the batch) its smooth stand-in is climbed, see ``DifferentiableScorer``. Latents are
    moved back by the core's projection after every step, so that with ``sphere`` the ascent stays on the prior's
    typical sphere. The prior term ``tau`` takes no part, as in the other searchers without a policy.

    Args:
        starts: Latents ascended at a time, drawn from the prior.
        steps: Candidates along each ascent, the start included; then new starts are drawn.
        learning_rate: Adam's step size, in latent coordinates, whose prior standard deviation is 1.
        second_order: Whether the gradient signal is climbed as well, where it has a weight.
    """

    name: ClassVar[str] = "gradient_ascent"

    def __init__(
        self, starts: int = 32, steps: int = 128, learning_rate: float = 0.1, second_order: bool = True
    ) -> None:
        if starts < 1:
            raise InputError(f"searcher.starts must be at least 1, got {starts}")
        if steps < 2:
            raise InputError(f"searcher.steps must be at least 2 (1 would be random search), got {steps}")
        if learning_rate <= 0:
            raise InputError(f"searcher.learning_rate must be positive, got {learning_rate}")
        self.starts = starts
        self.steps = steps
        self.learning_rate = learning_rate
        self.second_order = second_order

    def _search(self, core: LatentCore, budget: int, seed: int, observer: SearchObserver) -> None:
        random = random_stream(seed, "gradient_ascent")
        while core.queries < budget:
            n = min(self.starts, budget - core.queries)
            drawn = torch.randn(n, core.latent_dim, generator=random).to(core.device)
            latents = core.settings.project(drawn).requires_grad_()
            adam = torch.optim.Adam([latents], lr=self.learning_rate, maximize=True)
            for _ in range(self.steps):
                current = latents.detach()[: budget - core.queries]
                # First the gradient: without white-box access it raises before a query is spent.
                gradient = score_gradient(core, current, self.second_order)
                core.evaluate(current)
                length = float(gradient.norm(dim=1).mean())
                observer.on_update(core.queries, core.pool, core.scalars() | {"gradient_ascent/norm": length})
                if core.queries == budget:
                    return
                latents.grad = gradient
                adam.step()
                with torch.no_grad():
                    latents.copy_(core.settings.project(latents))


def score_gradient(core: LatentCore, latents: Tensor, second_order: bool = True) -> Tensor:
    """Gradient of the score with respect to latents, through projection, generator and both models.

    It neither counts queries nor keeps candidates: evaluate the same latents through the core as well.

    Args:
        core: The search problem; its scorer must be a ``DifferentiableScorer``.
        latents: ``[n, d]``.
        second_order: Whether the gradient signal takes part.

    Returns:
        ``[n, d]``, on the core's device, without autograd history.

    Raises:
        AccessError: The scorer's pair is not white-box.
        InputError: The scorer cannot be differentiated.
        NotApplicable: The generator cannot: its inputs are discrete, or made without gradients.
        RunError: A model has an operation without a second derivative.
    """
    scorer: object = core.scorer
    if not isinstance(scorer, DifferentiableScorer):
        raise InputError(
            f"searcher: gradient ascent needs a scorer with differentiable_score, {type(scorer).__name__} has none;"
            " use another searcher"
        )
    chunks = torch.split(latents.detach().to(core.device), core.batch_size)
    return torch.cat([_gradient(core, scorer, chunk, second_order) for chunk in chunks])


def _gradient(core: LatentCore, scorer: DifferentiableScorer, latents: Tensor, second_order: bool) -> Tensor:
    with torch.enable_grad():
        latents = latents.clone().requires_grad_()
        inputs = core.generator(core.settings.project(latents))
        if not inputs.requires_grad:
            raise NotApplicable(
                "gradient ascent climbs through the generator, whose outputs have no gradient (requires_grad): they are"
                " discrete, or it runs under no_grad; use another searcher"
            )
        score = scorer.differentiable_score(inputs, second_order=second_order)
        try:
            (gradient,) = torch.autograd.grad(score.sum(), latents)
        except RuntimeError as error:
            if "not implemented" not in str(error):
                raise
            raise RunError(
                f"models: {str(error).splitlines()[0]}; set searcher.second_order to false, or weight the gradient"
                " signal 0"
            ) from error
    return gradient
