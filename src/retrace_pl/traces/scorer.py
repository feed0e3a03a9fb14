"""TraceScorer: how strongly the two models disagree about each input, as one number in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from retrace_pl.errors import InputError, RunError
from retrace_pl.traces.access import SIGNALS
from retrace_pl.traces.differentiable import differentiable_response
from retrace_pl.traces.normalisers import FixedQuantile, Normaliser
from retrace_pl.traces.pair import ModelPair, PairResponse, PairValues
from retrace_pl.traces.signals import delta_gradient, delta_loss, delta_prediction

__all__ = ["Sign", "TraceDeltas", "TraceScorer", "TraceScores", "TraceWeights"]

Sign = Literal["positive", "paper_literal"]


@dataclass(frozen=True)
class TraceWeights:
    """Weights of the normalised signals (alpha, beta and gamma of ReTrace); only their ratios matter.

    Args:
        prediction: Weight of the distance of the output probabilities.
        loss: Weight of the difference of the losses.
        gradient: Weight of one minus the cosine of the input gradients.

    Raises:
        InputError: A weight is negative or not finite, or all are zero.
    """

    prediction: float = 1.0
    loss: float = 1.0
    gradient: float = 1.0

    def __post_init__(self) -> None:
        for signal, weight in asdict(self).items():
            if not (math.isfinite(weight) and weight >= 0.0):
                raise InputError(f"weights: {signal}={weight} must be a finite number >= 0")
        if not any(asdict(self).values()):
            raise InputError("weights: all are zero; give at least one signal a positive weight")

    @classmethod
    def parse(cls, weights: TraceWeights | Mapping[str, float] | None) -> TraceWeights:
        """Return weights from a mapping; signals it leaves out keep their default of 1.

        Raises:
            InputError: An unknown signal, or weights that the constructor refuses.
        """
        if weights is None:
            return cls()
        if isinstance(weights, TraceWeights):
            return weights
        unknown = sorted(set(weights) - set(SIGNALS))
        if unknown:
            raise InputError(f"weights: unknown signal {unknown[0]!r}; choose from {', '.join(SIGNALS)}")
        return cls(**{signal: float(weight) for signal, weight in weights.items()})


class TraceDeltas(NamedTuple):
    """Raw differences before normalisation, each of shape [n] on the pair's device; None where not computed.

    `tiny_gradient` marks inputs for which either model's gradient norm is below 1e-8.
    """

    prediction: Tensor | None = None
    loss: Tensor | None = None
    gradient: Tensor | None = None
    tiny_gradient: Tensor | None = None

    def named(self) -> dict[str, Tensor]:
        """Return the differences that were computed, by signal."""
        values = (self.prediction, self.loss, self.gradient)
        return {signal: value for signal, value in zip(SIGNALS, values, strict=True) if value is not None}


class TraceScores(NamedTuple):
    """Raw differences and the score in [0, 1], each of shape [n] on the pair's device; None where not computed."""

    prediction: Tensor | None
    loss: Tensor | None
    gradient: Tensor | None
    score: Tensor


class TraceScorer:
    """Scores inputs by the weighted mean of the normalised signals that the pair's access level allows.

    Signals above the level, and those of weight zero, are left out and not computed; the other weights are scaled to
    sum to one. Results do not depend on `batch_size` beyond rounding; whether they depend on the other inputs of a
    call is the normaliser's choice.

    Args:
        pair: The two models at one access level.
        weights: Weights of the signals; all equal by default.
        normaliser: Brings each signal to [0, 1]; `FixedQuantile` by default. The scorer works on a copy, so that
            one setting can serve several pairs; one that was fitted before keeps its reference.
        sign: `positive`: the score rises with the differences. `paper_literal`: one minus that, as the reward of the
            paper is printed; it points away from the deleted data wherever the differences point towards it.
        batch_size: Inputs per forward pass.

    Raises:
        InputError: A setting is out of range, or every signal that the access level allows has weight zero.

    Example:
        >>> original, unlearned = nn.Linear(4, 3), nn.Linear(4, 3)
        >>> scorer = TraceScorer(ModelPair(original, unlearned, "white"), weights={"gradient": 2.0})
        >>> scorer.fit(torch.rand(100, 4))
        >>> scores = scorer(torch.rand(5, 4))
        >>> scores.score.shape, bool((scores.score <= 1).all()), scorer.signals
        (torch.Size([5]), True, ('prediction', 'loss', 'gradient'))
    """

    signal: ClassVar[Literal["gap", "directional"]] = "gap"
    """What the differences are: the size of any gap, or how much a class was taken away."""

    def __init__(
        self,
        pair: ModelPair,
        weights: TraceWeights | Mapping[str, float] | None = None,
        normaliser: Normaliser | None = None,
        sign: Sign = "positive",
        batch_size: int = 512,
    ) -> None:
        if sign not in get_args(Sign):
            raise InputError(f"sign: {sign!r} is unknown; choose one of {', '.join(get_args(Sign))}")
        if batch_size < 1:
            raise InputError(f"batch_size: {batch_size} must be at least 1")
        self.pair = pair
        self.weights = TraceWeights.parse(weights)
        self.normaliser = FixedQuantile() if normaliser is None else deepcopy(normaliser)
        self.sign: Sign = sign
        self.batch_size = batch_size
        active = {signal: weight for signal, weight in asdict(self.weights).items() if signal in pair.access.signals}
        total = sum(active.values())
        if total == 0.0:
            raise InputError(
                f"weights: every signal that access={pair.access} allows ({', '.join(active)}) has weight 0;"
                " give one a positive weight or raise the access level"
            )
        self._weights = {signal: weight / total for signal, weight in active.items() if weight > 0.0}

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that make up the score, in the order of `SIGNALS`."""
        return tuple(self._weights)

    @property
    def device(self) -> torch.device:
        """Device of the pair and of every result."""
        return self.pair.device

    def fit(self, public: Any) -> None:
        """Take the normaliser's reference statistics from public inputs; once, before any score.

        Args:
            public: Public inputs, of the kind the pair's behaviour understands. Ignored by normalisers that work
                within the batch.
        """
        if self.normaliser.needs_fit:
            self.normaliser.fit(self.deltas(public).named())

    def __call__(self, inputs: Any, signals: Collection[str] | None = None) -> TraceScores:
        """Score inputs.

        Args:
            inputs: n inputs, of the kind the pair's behaviour understands; on any device.
            signals: Signals to return besides those of the score.

        Returns:
            Raw differences and scores, each of shape [n], on the pair's device.

        Raises:
            AccessError: A signal above the access level.
            InputError: No inputs, or models whose outputs do not fit each other.
            RunError: `fit` was not called, or a model's output is not finite.
        """
        self._require_fit()
        deltas = self.deltas(inputs, signals)
        return TraceScores(deltas.prediction, deltas.loss, deltas.gradient, self.combine(deltas))

    def deltas(self, inputs: Any, signals: Collection[str] | None = None) -> TraceDeltas:
        """Return raw differences of the score's signals and of `signals`; needs no fit.

        Each model runs forward once per chunk of `batch_size`, and backward once if the gradient is among them.
        """
        extra = frozenset(signals or ())
        for signal in extra:
            self.pair.access.require(signal)
        wanted = tuple(signal for signal in SIGNALS if signal in self._weights or signal in extra)
        behaviour = self.pair.behaviour
        size = behaviour.size(inputs)
        if size == 0:
            raise InputError("inputs: the batch is empty; pass at least one input")
        chunks: list[TraceDeltas] = []
        finite: list[PairValues] = []
        for start in range(0, size, self.batch_size):
            part = behaviour.select(inputs, start, start + self.batch_size)
            response = self.pair.respond(part, wanted, check_finite=False, label_by=self._label_by)
            chunks.append(self._differences(response, wanted))
            finite.append(response.finite)
        self.pair.check_finite(finite)
        return TraceDeltas(*(_join(column) for column in zip(*chunks, strict=True)))

    def combine(self, deltas: TraceDeltas) -> Tensor:
        """Turn raw differences into scores, shape [n], in [0, 1].

        Raises:
            RunError: `fit` was not called, or a signal of the score is missing.
        """
        self._require_fit()
        named = deltas.named()
        missing = [signal for signal in self._weights if signal not in named]
        if missing:
            raise RunError(f"scorer: the score needs the {missing[0]} differences, which were not computed")
        parts = [weight * self.normaliser(signal, named[signal]) for signal, weight in self._weights.items()]
        mean = torch.stack(parts).sum(dim=0).clamp(0.0, 1.0)
        return mean if self.sign == "positive" else 1.0 - mean

    def differentiable_score(self, inputs: Tensor, *, second_order: bool = True) -> Tensor:
        """Return what a gradient can climb, see `DifferentiableScorer`: the score with smooth normalisers.

        Args:
            inputs: Shape [n, ...], with `requires_grad`, at most one batch: nothing is split here.
            second_order: Let the gradient signal take part; the weights of the others are kept as they are.

        Raises:
            AccessError: Black- or gray-box access.
            InputError: `inputs` carries no gradient, or the score consists of the gradient signal that is left out.
            RunError: `fit` was not called, or a model's output is not finite.
        """
        self._require_fit()
        signals = [signal for signal in self._weights if second_order or signal != "gradient"]
        if not signals:
            raise InputError(
                "weights: the score is made of the gradient signal alone; allow second derivatives or weight another"
            )
        response = differentiable_response(self.pair, inputs, signals, self._label_by)
        self.pair.check_finite([response.finite])
        named = self._differences(response, signals).named()
        parts = [self._weights[signal] * self.normaliser.smooth(signal, named[signal]) for signal in signals]
        mean = torch.stack(parts).sum(dim=0)
        return mean if self.sign == "positive" else -mean

    def state_dict(self) -> dict[str, Any]:
        """Return settings and the normaliser's reference as plain types, for JSON and for resuming a search."""
        return {
            "access": str(self.pair.access),
            "signals": list(self.signals),
            "weights": asdict(self.weights),
            "sign": self.sign,
            "normaliser": self.normaliser.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the normaliser's reference from `state_dict` of a scorer with the same settings.

        Raises:
            InputError: The state was made with another access level, sign, normaliser or other weights.
        """
        own = self.state_dict()
        for setting in ("access", "signals", "weights", "sign"):
            if state.get(setting) != own[setting]:
                raise InputError(
                    f"scorer: the stored state has {setting}={state.get(setting)}, this run has {own[setting]};"
                    " use the same setting or fit again"
                )
        self.normaliser.load_state_dict(state.get("normaliser") or {})

    @property
    def _label_by(self) -> Callable[[Tensor], Tensor] | None:
        """How inputs are labelled from the original model's probabilities; None for its own labels y^."""
        return None

    def _differences(self, response: PairResponse, signals: Collection[str]) -> TraceDeltas:
        prediction = loss = gradient = tiny = None
        if "prediction" in signals:
            prediction = delta_prediction(*response.probabilities)
        if "loss" in signals and response.losses is not None:
            loss = delta_loss(*response.losses)
        if "gradient" in signals and response.gradients is not None:
            gradient, tiny = delta_gradient(*response.gradients)
        return TraceDeltas(prediction, loss, gradient, tiny)

    def _require_fit(self) -> None:
        if not self.normaliser.fitted(self.signals):
            name = type(self.normaliser).__name__
            raise RunError(f"scorer: {name} has no reference yet; call fit(public_inputs) before scoring")


def _join(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    tensors = [part for part in parts if part is not None]
    if not tensors:
        return None
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
