"""Success rates with their binomial intervals."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from retrace_pl.errors import InputError


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a binomial proportion (Wilson 1927), without continuity correction.

    Args:
        successes: Number of successes, 0 to n.
        n: Number of trials, at least 1.
        level: Confidence level in (0, 1).

    Returns:
        Lower and upper bound, in [0, 1]. Never of width 0, also at 0 or n successes.

    Raises:
        InputError: For counts or a level outside their range.
    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"a proportion needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    if not 0 < level < 1:
        raise InputError(f"the confidence level must lie between 0 and 1, got {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


class SuccessRate(Metric):
    """Share of candidates that count as a success, with its Wilson interval.

    The caller says what a success is; an audit uses three definitions: ``sr_oracle`` (an independent evaluation
    classifier, which saw neither model, assigns a deleted class; the default), ``sr_original`` (the original model f+
    does) and ``sr_mse`` (squared error to the nearest deleted record at or below the deleted classes' own intra-class
    pairwise mean). Range [0, 1], no unit, higher is more leakage. Source: ReTrace reports "SR" without a definition;
    these are ours.

    Args:
        level: Confidence level of the interval.
        kwargs: Passed on to `torchmetrics.Metric`.

    Example:
        >>> rate = SuccessRate()
        >>> rate.update(torch.tensor([True, True, False, True]))
        >>> {name: round(float(value), 3) for name, value in rate.compute().items()}
        {'rate': 0.75, 'low': 0.301, 'high': 0.954}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    successes: Tensor
    count: Tensor

    def __init__(self, level: float = 0.95, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.level = level
        self.add_state("successes", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, success: Tensor) -> None:
        """Add one boolean per candidate, shape [n].

        Raises:
            InputError: For anything but booleans: a mean of scores is not a binomial proportion.
        """
        if success.dtype != torch.bool:
            raise InputError(f"success rates count booleans, got {success.dtype}")
        self.successes += success.sum()
        self.count += success.numel()

    def compute(self) -> dict[str, Tensor]:
        """``rate``, ``low`` and ``high`` as float64 scalars; NaN without candidates."""
        successes, count = int(self.successes), int(self.count)
        values = (float("nan"),) * 3
        if count:
            values = (successes / count, *wilson_interval(successes, count, self.level))
        return {
            key: torch.tensor(value, dtype=torch.float64, device=self.successes.device)
            for key, value in zip(("rate", "low", "high"), values, strict=True)
        }
