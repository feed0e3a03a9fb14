"""A search problem with a known answer, to try a searcher on in a second."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from retrace_pl.envs.core import LatentCore, LatentSettings

__all__ = ["IdentityGenerator", "QuadraticScorer", "TargetScorer", "toy_core"]


class _Scores(NamedTuple):
    score: Tensor


class IdentityGenerator(nn.Module):
    """Shows the latent itself.

    Args:
        latent_dim: Length of a latent.
    """

    def __init__(self, latent_dim: int = 8) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self, latents: Tensor) -> Tensor:
        """Return ``latents`` ``[n, d]`` as they are."""
        return latents


class TargetScorer:
    """Scores inputs by their distance to a target, ``exp(-mean squared distance)`` in (0, 1], and counts them.

    Args:
        target: The input with score 1, ``[d]``.
    """

    def __init__(self, target: Tensor) -> None:
        self.target = target
        self.seen = 0

    def __call__(self, inputs: Tensor) -> _Scores:
        """Score inputs ``[n, d]``."""
        self.seen += len(inputs)
        return _Scores(torch.exp(-(inputs - self.target).square().mean(1)))


class QuadraticScorer:
    """Scores inputs by ``slope . x - (curvature / 2) |x|^2``, for which the KL-regularised optimum is known.

    With inputs from the prior ``N(0, I)`` the exponentially tilted prior ``p0(x) exp(s(x) / tau)`` is again a Gaussian.

    Args:
        slope: ``[d]``.
        curvature: At least 0; 0 makes the score linear.
    """

    def __init__(self, slope: Tensor, curvature: float = 0.0) -> None:
        self.slope = slope
        self.curvature = curvature

    def __call__(self, inputs: Tensor) -> _Scores:
        """Score inputs ``[n, d]``; any real numbers."""
        return _Scores(inputs @ self.slope - (self.curvature / 2) * inputs.square().sum(1))

    def tilt(self, tau: float) -> tuple[Tensor, float]:
        """Mean ``[d]`` and variance (of every coordinate) of the exponentially tilted prior.

        Example:
            >>> QuadraticScorer(torch.tensor([2.0]), curvature=1.0).tilt(tau=1.0)
            (tensor([1.]), 0.5)
        """
        return self.slope / (tau + self.curvature), tau / (tau + self.curvature)


def toy_core(settings: LatentSettings | None = None, latent_dim: int = 8, seed: int = 0) -> LatentCore:
    """A latent-space search problem whose best latent is ``(1, -1, 1, -1, ...)``.

    Example:
        >>> core = toy_core()
        >>> float(core.evaluate(core.scorer.target[None]))
        1.0
    """
    target = torch.tensor([(-1.0) ** i for i in range(latent_dim)])
    return LatentCore(IdentityGenerator(latent_dim), TargetScorer(target), settings, seed)
