"""DirectionalScorer: how much of its class the unlearned model takes away from each input, in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import asdict
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from retrace_pl.errors import InputError, RunError
from retrace_pl.traces.class_inference import ClassEvidence, infer_classes
from retrace_pl.traces.normalisers import Normaliser
from retrace_pl.traces.pair import ModelPair, PairResponse
from retrace_pl.traces.scorer import TraceDeltas, TraceScorer, TraceWeights
from retrace_pl.traces.signals import GRADIENT_EPS

__all__ = [
    "Deletion",
    "DirectionalScorer",
    "Scale",
    "SignedRange",
    "directional_gradient",
    "directional_loss",
    "directional_prediction",
]

Deletion = Literal["class", "records"]


Scale = Literal["log", "linear"]

FINEST = 1e-5
"""Differences around this size are the smallest that the logarithmic scale tells apart; rounding is well below."""


def directional_prediction(original: Tensor, unlearned: Tensor, labels: Tensor) -> Tensor:
    """How much probability of its label an input lost, p+_c(x) - p-_c(x).

    Args:
        original: Class probabilities of the original model, shape [n, K].
        unlearned: Class probabilities of the unlearned model, shape [n, K].
        labels: Class c of every input, shape [n].

    Returns:
        Shape [n], in [-1, 1].
    """
    columns = labels[:, None]
    return (original.gather(1, columns) - unlearned.gather(1, columns)).squeeze(1)


def directional_loss(original: Tensor, unlearned: Tensor) -> Tensor:
    """Rise of the loss where either model knows the class: v / (1 + |v|) of v = exp(-min(L+, L-)) (L- - L+).

    The plain rise L- - L+ is no trace of the class: an unlearned model that drives the class's loss up everywhere, as
    negative gradient does, raises it most on inputs that neither model takes for the class. The factor is the larger of
    the two probabilities of the label; where f+ has it, v is the label's term of KL(p+ || p-).

    Args:
        original: Cross-entropy of every input under the original model, shape [n], in nats, not negative.
        unlearned: Cross-entropy under the unlearned model and the same labels, shape [n].

    Returns:
        Shape [n], in (-1, 1); 0 where the losses are equal.
    """
    rise = (-torch.minimum(original, unlearned)).exp() * (unlearned - original)
    return rise / (1.0 + rise.abs())


def directional_gradient(original: Tensor, unlearned: Tensor, eps: float = GRADIENT_EPS) -> tuple[Tensor, Tensor]:
    """Relative rise of the input gradient's length, (|g-| - |g+|) / (|g-| + |g+|).

    g is the gradient of the label's loss: how hard the input pulls towards its label. At an input of the class the
    original model has nothing left to pull at (g+ vanishes with its loss), a model without the class does.

    Args:
        original: Gradient of the original model's loss, shape [n, ...].
        unlearned: Gradient of the unlearned model's loss, same shape.
        eps: Floor on the sum of the lengths.

    Returns:
        The differences, shape [n], in [-1, 1], and a boolean mask, shape [n], true where either length is below `eps`.
    """
    first, second = (torch.linalg.vector_norm(values.flatten(1), dim=1) for values in (original, unlearned))
    return (second - first) / (second + first + eps), torch.minimum(first, second) < eps


class SignedRange(Normaliser):
    """Maps differences in [-1, 1], which need no reference, to [0, 1], so that no difference is 1/2; strictly rising.

    Linear is (1 + v) / 2. Nearly all candidates of a search have next to nothing of the class to lose, which makes it
    flat almost everywhere, with a few peaks. Logarithmic is (1 + arsinh(v / e) / arsinh(1 / e)) / 2, e = `FINEST`: the
    same order, but every factor of ten is a step of the same size. Negative differences are kept apart from zero for
    the same reason.

    Args:
        log: Signals that are put on the logarithmic scale; the others stay linear.
    """

    def __init__(self, log: Collection[str] = ()) -> None:
        self.log = tuple(log)

    def __call__(self, signal: str, delta: Tensor) -> Tensor:
        """Normalise `delta`, shape [n], of the named signal."""
        return self.smooth(signal, delta).clamp(0.0, 1.0)

    def smooth(self, signal: str, delta: Tensor) -> Tensor:
        """The same; it is smooth."""
        if signal in self.log:
            delta = torch.asinh(delta / FINEST) / math.asinh(1.0 / FINEST)
        return (1.0 + delta) / 2.0


class DirectionalScorer(TraceScorer):
    """Scores inputs by how much less the unlearned model takes them for the deleted class than the original did.

    The gap of `TraceScorer` rises with any disagreement. A search through a generator that never saw the deleted class
    finds ambiguous inputs on which two models differ anyway. This score asks for one thing: that f+ takes the input for
    the class and f- does not. With c the inferred class, in each form a number in [-1, 1] that is 0 for equal models,
    changes its sign when they are swapped, and needs no reference:

    - prediction (black-box): p+_c(x) - p-_c(x);
    - loss (gray-box): v / (1 + |v|), v = exp(-min(L+, L-)) (L- - L+), L = CE(f(x), c);
    - gradient (white-box): (|g-| - |g+|) / (|g-| + |g+|), g = grad_x CE(f(x), c).

    Each is mapped to [0, 1] by `SignedRange`, and the score is the weighted mean. The inputs must be those of
    classifiers, whatever their modality.

    Which class: `fit` infers it from the public inputs (`infer_classes`). Of several deleted classes each input is
    measured against the one that f+ finds most probable in it, so that an input between two of them is worth less than
    one of either; the sum over the classes would not tell them apart. A search of this score may end at one class
    alone, so that attacks search for each of them by itself (`by_class`). Where not even one class stands out
    (identical models), and for deleted single records, the label is the original model's own, y^ = argmax f+(x). For
    records this is as far as a direction goes: no class was deleted, and only the sign of the gap is left of it.

    The inference shows every public input to both models once, as a fitted normaliser does. These public queries are
    not part of a search's budget; `public_queries` counts them.

    Args:
        pair: The two models at one access level.
        weights: Weights of the three forms; those above the access level are left out.
        deletion: `class`: infer what was deleted. `records`: single records were, there is no class to infer.
        classes: The deleted classes, where the auditor knows them; nothing is then inferred.
        scale: `log` puts prediction and loss on the logarithmic scale of `SignedRange`, `linear` none.
        batch_size: Inputs per forward pass.

    Raises:
        InputError: A setting is out of range, classes are given for deleted records, or a weight that counts is zero.
    """

    signal: ClassVar[Literal["gap", "directional"]] = "directional"

    def __init__(
        self,
        pair: ModelPair,
        weights: TraceWeights | Mapping[str, float] | None = None,
        deletion: Deletion = "class",
        classes: Sequence[int] | None = None,
        scale: Scale = "log",
        batch_size: int = 512,
    ) -> None:
        if scale not in get_args(Scale):
            raise InputError(f"scale: {scale!r} must be log or linear")
        logarithmic = ("prediction", "loss") if scale == "log" else ()
        super().__init__(pair, weights, SignedRange(logarithmic), "positive", batch_size)
        if deletion not in get_args(Deletion):
            raise InputError(f"deletion: {deletion!r} must be class or records")
        if classes is not None and (deletion == "records" or not classes or min(classes) < 0):
            raise InputError("classes: give class numbers from 0 on, and only for deleted classes; or leave it out")
        self.deletion: Deletion = deletion
        self.scale: Scale = scale
        self.evidence: ClassEvidence | None = None
        self.public_queries = 0
        self._classes: tuple[int, ...] | None = () if deletion == "records" else None
        if classes is not None:
            self._classes = tuple(dict.fromkeys(int(label) for label in classes))

    @property
    def classes(self) -> tuple[int, ...]:
        """The deleted classes the score is about; empty where there is none to speak of.

        Raises:
            RunError: `fit` was not called.
        """
        self._require_fit()
        assert self._classes is not None
        return self._classes

    def by_class(self) -> tuple[DirectionalScorer, ...]:
        """One scorer for each deleted class, most likely first; this one alone where there is none to speak of.

        Raises:
            RunError: `fit` was not called.
        """
        if len(self.classes) < 2:
            return (self,)
        parts = []
        for label in self.classes:
            part = copy(self)
            part._classes = (label,)
            parts.append(part)
        return tuple(parts)

    def fit(self, public: Any) -> None:
        """Infer the deleted classes from public inputs, unless they are known; one query per public input.

        Args:
            public: Public inputs, of the kind the pair's behaviour understands.

        Raises:
            InputError: No inputs, or models that are no classifiers.
        """
        if self._classes is not None and self.evidence is None:
            return
        self.evidence = infer_classes(self.pair, public, self.batch_size)
        self.public_queries = self.pair.behaviour.size(public)
        self._classes = self.evidence.deleted

    def state_dict(self) -> dict[str, Any]:
        """Return settings and the deleted classes as plain types, for JSON and for resuming a search."""
        return {
            "signal": self.signal,
            "access": str(self.pair.access),
            "signals": list(self.signals),
            "weights": asdict(self.weights),
            "deletion": self.deletion,
            "scale": self.scale,
            "classes": None if self._classes is None else list(self._classes),
            "clear": None if self.evidence is None else self.evidence.clear,
            "public_queries": self.public_queries,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the deleted classes from `state_dict` of a scorer with the same settings.

        Raises:
            InputError: The state was made with another score, access level, kind of deletion, scale or other weights.
        """
        own = self.state_dict()
        for setting in ("signal", "access", "signals", "weights", "deletion", "scale"):
            if state.get(setting) != own[setting]:
                raise InputError(
                    f"scorer: the stored state has {setting}={state.get(setting)}, this run has {own[setting]};"
                    " use the same setting or fit again"
                )
        classes = state.get("classes")
        self._classes = None if classes is None else tuple(int(label) for label in classes)
        self.public_queries = int(state.get("public_queries") or 0)

    @property
    def _label_by(self) -> Callable[[Tensor], Tensor] | None:
        self._require_fit()
        return self._most_probable if self._classes else None

    def _most_probable(self, probabilities: Tensor) -> Tensor:
        """The deleted class that f+ finds most probable in each input, shape [n]."""
        _require_classes(probabilities)
        known = probabilities.shape[1]
        if max(self.classes) >= known:
            raise InputError(f"classes: {max(self.classes)} is none of the models' {known} classes, numbered from 0")
        classes = torch.tensor(self.classes, device=probabilities.device)
        return classes[probabilities[:, classes].argmax(dim=1)]

    def _differences(self, response: PairResponse, signals: Collection[str]) -> TraceDeltas:
        _require_classes(response.probabilities.original)
        prediction = loss = gradient = tiny = None
        if "prediction" in signals:
            prediction = directional_prediction(*response.probabilities, response.labels)
        if "loss" in signals and response.losses is not None:
            loss = directional_loss(*response.losses)
        if "gradient" in signals and response.gradients is not None:
            gradient, tiny = directional_gradient(*response.gradients)
        return TraceDeltas(prediction, loss, gradient, tiny)

    def _require_fit(self) -> None:
        if self._classes is None:
            raise RunError(
                "scorer: DirectionalScorer does not know the deleted class yet; call fit(public_inputs) before scoring"
            )


def _require_classes(probabilities: Tensor) -> None:
    if probabilities.ndim != 2:
        raise InputError(
            "traces.signal: the directional score compares class probabilities of shape [n, classes], these models"
            f" return {list(probabilities.shape)}; use signal=gap"
        )
