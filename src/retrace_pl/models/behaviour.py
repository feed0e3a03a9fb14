"""What comparing two models needs to know about a modality: images here, tokens or states in other implementations."""

from __future__ import annotations

from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from retrace_pl.errors import InputError

__all__ = [
    "Behaviour",
    "ClassifierBehaviour",
    "DiscreteBehaviour",
    "LogitsBehaviour",
    "RegroupingBehaviour",
    "behaviour_of",
]


@runtime_checkable
class Behaviour(Protocol):
    """How to slice inputs, run a model on them, and read its outputs as probabilities, labels and losses.

    Everything that depends on the modality goes through these methods, so the comparison of two models never
    learns whether an input is an image, a dict of token ids with its attention mask, or a state. `inputs` is whatever
    the implementation understands; the only requirements are a batch size and a way to slice.

    Outputs are one tensor of shape [n, ...]: logits, or the parameters of an action distribution side by side. No
    method may let one sample's result depend on another sample of the batch.
    """

    def size(self, inputs: Any) -> int:
        """Return the number of samples in `inputs`."""
        ...

    def select(self, inputs: Any, start: int, stop: int) -> Any:
        """Return the samples `start` to `stop` (exclusive; `stop` may exceed the size) as inputs of the same kind."""
        ...

    def to(self, inputs: Any, device: torch.device) -> Any:
        """Return `inputs` on `device`."""
        ...

    def differentiable(self, model: nn.Module, inputs: Any) -> Tensor:
        """Return the continuous representation of `inputs` at which gradients are taken.

        The pixels of an image, the output of the embedding layer for tokens. The result is a leaf of shape [n, ...]
        with `requires_grad` and shares no autograd history with the caller's tensors.
        """
        ...

    def forward(self, model: nn.Module, inputs: Any, representation: Tensor | None = None) -> Tensor:
        """Run `model` once and return its outputs, shape [n, ...].

        Args:
            model: Module in eval mode.
            inputs: Samples on the model's device.
            representation: Result of `differentiable(model, inputs)`; when given, the outputs are computed from it,
                so that they can be differentiated with respect to it.

        Raises:
            InputError: The model's outputs do not have the shape this modality requires.
        """
        ...

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Turn outputs into what a black-box auditor sees: probabilities, shape [n, ...], float32 or better."""
        ...

    def pseudo_labels(self, probabilities: Tensor) -> Tensor:
        """Return the labels that probabilities of the original model imply; used for the losses of both models."""
        ...

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of every sample under `labels`, shape [n], in nats, at least float32."""
        ...

    def join(self, first: Any, second: Any) -> Any:
        """Return the samples of `first` followed by those of `second`, as inputs of the same kind."""
        ...

    def words(self, inputs: Any) -> Tensor:
        """Return whole numbers, int64 [n, w], that tell one sample from another, whatever batch it comes in.

        Numbers past a sample's own end, where samples differ in length, are 0.
        """
        ...

    def moved(self, inputs: Any, representation: Tensor, direction: Tensor, size: float) -> Tensor:
        """Return a representation moved along `direction`, shape [n, ...], whose components are at most 1 in size.

        Args:
            inputs: The samples.
            representation: Result of `differentiable(model, inputs)`.
            direction: Of the same shape.
            size: Length of the step in the modality's own unit.
        """
        ...


@runtime_checkable
class RegroupingBehaviour(Protocol):
    """A behaviour that runs the samples of a batch in several parts, and not in their order."""

    def run_order(self, inputs: Any) -> Tensor:
        """Return the numbers of the samples in the order that `forward` runs them, int64 [n]."""
        ...


@runtime_checkable
class DiscreteBehaviour(Protocol):
    """A behaviour whose inputs are names (tokens) of points of the representation, so that points can be read back."""

    def blanks(self, samples: Any, count: int) -> tuple[Any, Tensor]:
        """Return `count` inputs of typical length to fill in, and which of their places are free, bool [count, L].

        Args:
            samples: Inputs to learn from how long one is and how it begins and ends.
            count: How many.
        """
        ...

    def scale(self, model: nn.Module) -> float:
        """Return the root mean square of the coordinates of all named points."""
        ...

    def nearest(self, model: nn.Module, inputs: Any, free: Tensor, representation: Tensor) -> Any:
        """Return `inputs` with the free places filled by the names nearest to a representation [n, L, E] by angle."""
        ...


def behaviour_of(model: nn.Module) -> Behaviour:
    """Return the behaviour that a model names itself (`Classifier.behaviour`), or that of plain classifiers."""
    own = getattr(model, "behaviour", None)
    return own if isinstance(own, Behaviour) else ClassifierBehaviour()


class LogitsBehaviour:
    """What classifiers of every modality share: one tensor per batch goes in, one row of logits per sample comes out.

    Probabilities, losses and everything after them are computed in float32 (float64 for a float64 model).
    """

    def select(self, inputs: Tensor, start: int, stop: int) -> Tensor:
        """Return a view of samples `start` to `stop`."""
        return inputs[start:stop]

    def to(self, inputs: Tensor, device: torch.device) -> Tensor:
        """Return `inputs` on `device`."""
        return inputs.to(device)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return softmax probabilities, shape [n, K]."""
        return _at_least_float32(outputs).softmax(dim=1)

    def pseudo_labels(self, probabilities: Tensor) -> Tensor:
        """Return the most probable class, shape [n], int64; the first one of a tie."""
        return probabilities.argmax(dim=1)

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of every sample, shape [n], in nats."""
        return nn.functional.cross_entropy(_at_least_float32(outputs), labels, reduction="none")


class ClassifierBehaviour(LogitsBehaviour):
    """Classifiers over one floating-point tensor (images, or any feature vector), gradients taken at the input.

    Inputs are cast to the floating-point type of the model, so a half-precision model takes float32 inputs; the
    probabilities, losses and everything after them are computed in float32 (float64 for a float64 model).
    """

    def size(self, inputs: Tensor) -> int:
        """Return the length of the first dimension.

        Raises:
            InputError: `inputs` is not a floating-point tensor of shape [n, ...].
        """
        if not isinstance(inputs, Tensor) or inputs.ndim < 2 or not inputs.is_floating_point():
            kind = (
                f"{inputs.dtype} tensor of shape {list(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs)
            )
            raise InputError(f"inputs: a classifier takes a floating-point tensor of shape [n, ...], got {kind}")
        return inputs.shape[0]

    def differentiable(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return the inputs themselves as a leaf of the model's floating-point type, shape [n, ...]."""
        leaf = inputs.detach().to(_floating_type(model, inputs.dtype))
        if leaf.is_inference():  # made under torch.inference_mode: only a copy may take part in autograd
            leaf = leaf.clone()
        return leaf.requires_grad_(True)

    def forward(self, model: nn.Module, inputs: Tensor, representation: Tensor | None = None) -> Tensor:
        """Return the logits, shape [n, K] with K >= 2.

        Raises:
            InputError: The model returns something else.
        """
        x = inputs.to(_floating_type(model, inputs.dtype)) if representation is None else representation
        return checked_logits(model, model(x), inputs.shape[0])

    def join(self, first: Tensor, second: Tensor) -> Tensor:
        """Return both batches in one, shape [n + m, ...]."""
        return torch.cat([first, second])

    def words(self, inputs: Tensor) -> Tensor:
        """Return the bits of every number as float32, or whole numbers as they are, shape [n, w]."""
        flat = inputs.detach().flatten(1)
        return flat.float().contiguous().view(torch.int32).long() if flat.is_floating_point() else flat.long()

    def moved(self, inputs: Tensor, representation: Tensor, direction: Tensor, size: float) -> Tensor:
        """Return the inputs after a step of `size` in units of pixel intensity, kept within [0, 1]."""
        return (representation + size * direction).clamp(0, 1)


def checked_logits(model: nn.Module, logits: Any, count: int) -> Tensor:
    """Return what a model made of `count` inputs, if it is logits [count, K] with K >= 2.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(logits, Tensor):
        raise InputError(f"model: {type(model).__name__} returns {type(logits).__name__}, not a tensor of logits")
    if logits.ndim != 2 or logits.shape[0] != count or logits.shape[1] < 2:
        raise InputError(
            f"model: {type(model).__name__} returns shape {list(logits.shape)} for {count} inputs;"
            " a classifier must return logits of shape [n, classes] with at least two classes"
        )
    return logits


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _floating_type(model: nn.Module, default: torch.dtype) -> torch.dtype:
    """Return the type of the model's first floating-point parameter or buffer."""
    tensors = chain(model.parameters(), model.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), default)
