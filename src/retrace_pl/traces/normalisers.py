"""Normalisers: bring the three signals, whose scales differ, to [0, 1] before they are weighted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from retrace_pl.errors import InputError, RunError
from retrace_pl.traces.signals import RESOLUTION

__all__ = ["BatchMinMax", "FixedQuantile", "Normaliser", "Rank"]


class Normaliser(ABC):
    """Maps the differences of one signal monotonically to [0, 1].

    Where the values that set the scale are all the same (spread of at most `RESOLUTION`), the result is 0
    everywhere, never NaN: an identical pair of models has no trace.
    """

    needs_fit: ClassVar[bool] = False

    def fit(self, deltas: Mapping[str, Tensor]) -> None:  # noqa: B027 - only normalisers with a reference use it
        """Take reference statistics from the differences on public inputs; nothing to do unless `needs_fit`.

        Args:
            deltas: Signal name to differences, each of shape [n].
        """

    def fitted(self, signals: Collection[str]) -> bool:
        """Say whether every one of `signals` can be normalised now."""
        return True

    @abstractmethod
    def __call__(self, signal: str, delta: Tensor) -> Tensor:
        """Normalise `delta`, shape [n], of the named signal; same shape, type and device, values in [0, 1]."""

    def smooth(self, signal: str, delta: Tensor) -> Tensor:
        """A stand-in for the normalised value that can be ascended: rising in `delta` at every size, and smooth.

        Here it is `delta` itself, shifted and scaled by constants to [0, 1] within the batch, which keeps the order
        that min-max and rank give.

        Args:
            signal: Name of the signal.
            delta: Differences with autograd history, shape [n].

        Returns:
            Shape [n]; it may leave [0, 1].
        """
        low, high = torch.aminmax(delta.detach())
        spread = high - low
        scaled = (delta - low) / spread.clamp_min(RESOLUTION)
        return torch.where(spread > RESOLUTION, scaled, torch.zeros_like(scaled))

    def state_dict(self) -> dict[str, Any]:
        """Return settings and reference statistics as plain types, for JSON."""
        return {"normaliser": type(self).__name__}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            InputError: The state is that of another kind of normaliser.
        """
        if state.get("normaliser") != type(self).__name__:
            raise InputError(
                f"normaliser: the stored state is of {state.get('normaliser')!r}, the setting says"
                f" {type(self).__name__}; use the same normaliser or fit again"
            )


class FixedQuantile(Normaliser):
    """Scale to fixed quantiles of the public inputs (default).

    The scale is set once, so a candidate's score never depends on which others were queried with it and the reward
    of a search is stationary. Differences at or below the low quantile map to 0.

    The upper end matters most where the public set lacks the deleted class: its differences are small, so most
    candidates of a search lie above its high quantile. With the tail `clip` all of them score 1, nothing is left to
    follow, and the selection among the ties is arbitrary. The tail `open`, v / (1 + v) with v = 1 at the high
    quantile, keeps their order at any size.

    Args:
        low: Quantile of the public differences that maps to 0.
        high: Quantile of the public differences that maps to 1/2 (tail `open`) or 1 (tail `clip`).
        tail: `open` keeps the order above the high quantile; `clip` maps all of it to 1.
    """

    needs_fit: ClassVar[bool] = True

    def __init__(self, low: float = 0.01, high: float = 0.99, tail: Literal["open", "clip"] = "open") -> None:
        if not 0.0 <= low < high <= 1.0:
            raise InputError(f"normaliser: low={low} and high={high} must satisfy 0 <= low < high <= 1")
        if tail not in ("open", "clip"):
            raise InputError(f"normaliser: tail={tail!r} must be open or clip")
        self.low = low
        self.high = high
        self.tail: Literal["open", "clip"] = tail
        self._reference: dict[str, tuple[float, float]] = {}

    def fitted(self, signals: Collection[str]) -> bool:
        """Say whether there is a reference for every one of `signals`."""
        return set(signals) <= set(self._reference)

    @property
    def degenerate(self) -> tuple[str, ...]:
        """Signals whose public differences are all the same, and which therefore normalise to 0."""
        return tuple(signal for signal, (low, high) in self._reference.items() if high - low <= RESOLUTION)

    def fit(self, deltas: Mapping[str, Tensor]) -> None:
        """Store the two quantiles (linear interpolation) of every signal.

        Raises:
            InputError: A signal has no values.
            RunError: A signal has values that are not finite.
        """
        reference: dict[str, tuple[float, float]] = {}
        for signal, delta in deltas.items():
            values = delta.detach().double().cpu().numpy() if delta.device.type != "mps" else delta.cpu().numpy()
            if values.size == 0:
                raise InputError(f"normaliser: no public inputs to take the {signal} quantiles from")
            if not np.isfinite(values).all():
                raise RunError(f"normaliser: the {signal} differences on the public inputs are not all finite")
            low, high = np.quantile(values, (self.low, self.high))
            reference[signal] = (float(low), float(high))
        self._reference = reference

    def __call__(self, signal: str, delta: Tensor) -> Tensor:
        """Normalise against the stored quantiles.

        Raises:
            RunError: `fit` has not seen the signal.
        """
        low, high = self._bounds(signal)
        if high - low <= RESOLUTION:
            return torch.zeros_like(delta)
        scaled = ((delta - low) / (high - low)).clamp_min(0.0)
        return scaled.clamp_max(1.0) if self.tail == "clip" else scaled / (1.0 + scaled)

    def smooth(self, signal: str, delta: Tensor) -> Tensor:
        """The tail `open`, whatever the setting, and a straight line below the low quantile: flat nowhere.

        Raises:
            RunError: `fit` has not seen the signal.
        """
        low, high = self._bounds(signal)
        if high - low <= RESOLUTION:
            return torch.zeros_like(delta)
        scaled = (delta - low) / (high - low)
        return scaled / (1.0 + scaled.clamp_min(0.0))

    def _bounds(self, signal: str) -> tuple[float, float]:
        if signal not in self._reference:
            raise RunError(f"normaliser: FixedQuantile has no {signal} reference; call fit(public_inputs) first")
        return self._reference[signal]

    def state_dict(self) -> dict[str, Any]:
        """Return quantile levels, the reference values per signal, and which signals are `degenerate`."""
        return {
            **super().state_dict(),
            "low": self.low,
            "high": self.high,
            "tail": self.tail,
            "reference": {signal: list(bounds) for signal, bounds in self._reference.items()},
            "degenerate": list(self.degenerate),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over levels and reference values.

        Raises:
            InputError: The state is that of another kind of normaliser, or damaged.
        """
        super().load_state_dict(state)
        try:
            low, high = float(state["low"]), float(state["high"])
            reference = {str(name): (float(a), float(b)) for name, (a, b) in state["reference"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"normaliser: the stored state is damaged ({error!r}); fit again") from None
        if not all(math.isfinite(bound) for bounds in reference.values() for bound in bounds):
            raise InputError("normaliser: the stored reference values are not finite; fit again")
        if state.get("tail") not in ("open", "clip"):
            raise InputError("normaliser: the stored state names no tail; fit again")
        self.low, self.high, self.tail, self._reference = low, high, state["tail"], reference


class BatchMinMax(Normaliser):
    """Scale to the minimum and maximum of the batch at hand (the paper's choice).

    The same candidate gets another score in another batch, so the reward of a search is not stationary and a batch
    of one always scores 0. For comparison with the published description.
    """

    def __call__(self, signal: str, delta: Tensor) -> Tensor:
        """Normalise within the batch."""
        low, high = torch.aminmax(delta)
        spread = high - low
        scaled = (delta - low) / spread.clamp_min(RESOLUTION)
        return torch.where(spread > RESOLUTION, scaled, torch.zeros_like(scaled))


class Rank(Normaliser):
    """Replace values by their rank within the batch, from 0 (smallest) to 1 (largest); ties share their mean rank."""

    def __call__(self, signal: str, delta: Tensor) -> Tensor:
        """Normalise within the batch."""
        ordered = delta.sort().values
        below = torch.searchsorted(ordered, delta)
        up_to = torch.searchsorted(ordered, delta, right=True)
        ranks = (below + up_to - 1).to(delta.dtype) / (2 * max(len(delta) - 1, 1))
        return torch.where(ordered[-1] - ordered[0] > RESOLUTION, ranks, torch.zeros_like(ranks))
