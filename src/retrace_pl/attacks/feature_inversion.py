"""From a feature vector back to inputs that have it: gradient descent through the model's features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrace_pl.attacks.base import AttackContext, NotApplicable
from retrace_pl.attacks.gradient_matching import total_variation
from retrace_pl.envs import CandidatePool, LatentSettings
from retrace_pl.errors import RunError
from retrace_pl.searchers import NullObserver

__all__ = ["Inversion", "InversionLog", "invert_features", "latent_start", "pixel_start"]

_CURVE_POINTS = 100
_LEADERS = 64

Render = Callable[[Tensor], Tensor]
"""Variables ``[n, ...]`` to inputs ``[n, ...]``, differentiable."""

Watch = Callable[[Tensor, Tensor], None]
"""Is told the variables ``[n, ...]`` that were evaluated and the cosines ``[n]`` they reached."""


@dataclass(frozen=True)
class Inversion:
    """The best point of every descent, best first.

    Args:
        inputs: ``[n, ...]``.
        variables: What they were rendered from: latents before projection, or the inputs themselves.
        cosines: ``[n]``, in [-1, 1].
    """

    inputs: Tensor
    variables: Tensor
    cosines: Tensor


class InversionLog:
    """Counts the evaluations of an inversion and keeps what an attack reports about them.

    Args:
        context: Whose observer watches.
        latent_dim: Dimension of the latents; None for an inversion outside any latent space, whose observer is shown an
            empty pool.
        queries: Queries made before the inversion.
        planned: Evaluations to come.

    Attributes:
        queries: Queries so far.
        curve: (queries, best cosine, mean of the best 64 cosines) at about 100 points.
        pool: Every evaluated latent; None outside any latent space.
    """

    def __init__(self, context: AttackContext, latent_dim: int | None, queries: int, planned: int) -> None:
        self._observer = context.observer or NullObserver()
        self._latent = context.latent
        self._every = max(1, planned // _CURVE_POINTS)
        self._end = queries + planned
        self._leaders = torch.empty(0)
        self.queries = queries
        self.curve: list[tuple[int, float, float]] = []
        self.pool = None if latent_dim is None else CandidatePool(latent_dim, capacity=planned)
        self._shown = CandidatePool(1) if self.pool is None else self.pool
        self._observer.on_start(self._end)

    def __call__(self, variables: Tensor, cosines: Tensor) -> None:
        """Note variables ``[n, ...]`` and the cosines ``[n]`` they reached."""
        self.queries += len(cosines)
        merged = torch.cat([self._leaders, cosines.cpu()])
        self._leaders = merged.topk(min(_LEADERS, len(merged))).values
        last = self.curve[-1][0] if self.curve else 0
        due = self.queries - last >= self._every or self.queries == self._end
        if due:
            self.curve.append((self.queries, float(self._leaders[0]), float(self._leaders.mean())))
        if self.pool is not None:
            self.pool.add(self._latent.project(variables), cosines)
        if due:
            best, mean = self.curve[-1][1:]
            scalars = {"score/best": best, "score/top64": mean, "score/batch": float(cosines.mean())}
            self._observer.on_update(self.queries, self._shown, scalars)

    def end(self) -> None:
        """Tell the observer that it is over, also after an error."""
        self._observer.on_end()


def latent_start(
    generator: nn.Module, latent: LatentSettings, n: int, random: torch.Generator
) -> tuple[Tensor, Render]:
    """Latents ``[n, d]`` from the prior, and how they become inputs: projected as in a search, then generated.

    Raises:
        NotApplicable: The generator has no latent space.
    """
    latent_dim = getattr(generator, "latent_dim", None)
    if not isinstance(latent_dim, int) or latent_dim < 1:
        raise NotApplicable(f"{type(generator).__name__} has no latent space to invert features in")
    network = generator.eval()

    def render(latents: Tensor) -> Tensor:
        return torch.as_tensor(network(latent.project(latents)))

    return torch.randn(n, latent_dim, generator=random), render


def pixel_start(public: Tensor, n: int, random: torch.Generator) -> tuple[Tensor, Render, tuple[float, float]]:
    """Uniform noise ``[n, ...]`` between the least and the greatest public value, rendered as it is, and those bounds.

    Raises:
        NotApplicable: The public inputs are not continuous.
    """
    if not public.is_floating_point():
        raise NotApplicable(f"inputs of type {public.dtype} have no gradient; use inversion: generator")
    low, high = float(public.min()), float(public.max())
    noise = torch.rand((n, *public.shape[1:]), generator=random)
    return low + (high - low) * noise, lambda pixels: pixels, (low, high)


def invert_features(
    features: Callable[[Tensor], Tensor],
    target: Tensor,
    start: Tensor,
    render: Render,
    *,
    centre: Tensor | None = None,
    steps: int,
    learning_rate: float,
    tv_weight: float = 0.0,
    box: tuple[float, float] | None = None,
    watch: Watch | None = None,
) -> Inversion:
    """Descend ``1 - cos(phi(render(v)) - c, target - c) + tv_weight * TV`` in v with Adam, from every start at once.

    Source: Bertran et al. (NeurIPS 2024), inversion of the recovered embedding; the centre c is ours. The best point
    of every descent is kept, so that its last steps cannot make it worse.

    Args:
        features: phi: inputs ``[n, ...]`` to ``[n, F]``, differentiable.
        target: ``[F]``.
        start: Variables v ``[n, ...]`` on the device of the computation.
        render: Variables to inputs.
        centre: c ``[F]``; zero where absent.
        steps: Evaluations of every start; the last one only measures, so there are ``steps - 1`` updates.
        learning_rate: Adam's, in units of v.
        tv_weight: Weight of the total variation of the inputs.
        box: Bounds that v is clamped to, at the start and after every update.
        watch: Is told about every evaluation.

    Raises:
        NotApplicable: The features do not depend on the variables through a gradient.
        RunError: The features are not finite.
    """
    offset = torch.zeros_like(target) if centre is None else centre
    wanted = (target - offset)[None]
    with torch.inference_mode(False), torch.enable_grad():
        variables = start.detach().clone()
        if box is not None:
            variables.clamp_(*box)
        variables.requires_grad_(True)
        adam = torch.optim.Adam([variables], lr=learning_rate)
        best = torch.full((len(start),), -torch.inf, device=start.device)
        kept = variables.detach().clone()
        for step in range(steps):
            inputs = render(variables)
            cosines = torch.nn.functional.cosine_similarity(features(inputs) - offset, wanted, dim=1)
            reached = cosines.detach()
            if not bool(reached.isfinite().all()):
                raise RunError("hrec: the original model's features are not finite; look at its training")
            better = (reached > best).view(-1, *[1] * (kept.ndim - 1))
            kept = torch.where(better, variables.detach(), kept)
            best = torch.maximum(best, reached)
            if watch is not None:
                watch(variables.detach(), reached)
            if step == steps - 1:
                break
            cost = (1 - cosines).sum()
            if tv_weight:
                cost = cost + tv_weight * len(inputs) * total_variation(inputs)  # a mean over the inputs: back to a sum
            variables.grad = _gradient(cost, variables)
            adam.step()
            if box is not None:
                variables.data.clamp_(*box)
    order = best.argsort(descending=True, stable=True)
    with torch.no_grad():
        inputs = render(kept[order])
    return Inversion(inputs.detach(), kept[order], best[order])


def _gradient(cost: Tensor, variables: Tensor) -> Tensor:
    gradient = None
    if cost.requires_grad:
        (gradient,) = torch.autograd.grad(cost, variables, allow_unused=True)
    if gradient is None:
        raise NotApplicable("the features have no gradient at the inputs, so they cannot be inverted by descent")
    return gradient
