"""ModelPair: the model before and after unlearning, frozen, seen through one access level."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from retrace_pl.errors import InputError, RunError
from retrace_pl.models.behaviour import Behaviour, behaviour_of
from retrace_pl.traces.access import Access
from retrace_pl.traces.execution import Autocast, Execution, MemoryFormat

__all__ = ["ModelPair", "PairResponse", "PairValues"]


class PairValues(NamedTuple):
    """The same quantity of both models, on the same inputs."""

    original: Tensor
    unlearned: Tensor


@dataclass(frozen=True)
class PairResponse:
    """What one forward (and at most one backward) pass of each model yields.

    Attributes:
        labels: Labels, shape [n], used for the losses of both models: y^ that the original model assigns, unless
            `respond` was told otherwise.
        probabilities: Output probabilities, each of shape [n, ...].
        losses: Loss of every sample under `labels`, each of shape [n], in nats; None unless asked for.
        gradients: Gradient of every sample's loss at its differentiable representation, each of shape [n, ...];
            None unless asked for.
        finite: Whether everything above is finite, one boolean scalar per model, still on the device.
    """

    labels: Tensor
    probabilities: PairValues
    losses: PairValues | None
    gradients: PairValues | None
    finite: PairValues


class _Single(NamedTuple):
    """One model's half of a response."""

    labels: Tensor
    probabilities: Tensor
    losses: Tensor | None
    gradients: Tensor | None
    finite: Tensor


class ModelPair:
    """The original model f+ and the unlearned model f-, of which an auditor sees what the access level allows.

    Both modules are changed in place and for good: eval mode (no sample's result depends on the others in its batch)
    and `requires_grad` off for every parameter (so a backward pass computes input gradients alone). Hand over copies
    if training goes on. Switching either model back with `.train()` later makes every following call fail.

    The level is enforced here: a black-box pair runs no loss, a black- or gray-box pair no backward pass.

    Args:
        original: Model before unlearning, f+.
        unlearned: Model after unlearning, f-, on the same device. May be the same object (identity control).
        access: What the auditor sees: black (probabilities), gray (losses too) or white (input gradients too).
        behaviour: What is particular to the modality; what the original model names as its own by default.
        memory_format: With `autocast` and `compile`, how the models are run; see `Execution`. These ways save time
            and change results by rounding alone: the first batch is also shown to the plain models, and a larger
            difference stops the run.
        autocast: See `Execution`.
        compile: See `Execution`.

    Raises:
        InputError: The access level or a way to run is unknown, or the models lie on different devices.

    Example:
        >>> pair = ModelPair(nn.Linear(4, 3), nn.Linear(4, 3), access="gray")
        >>> pair.outputs(torch.rand(5, 4)).unlearned.shape, pair.losses(torch.rand(5, 4)).original.shape
        (torch.Size([5, 3]), torch.Size([5]))
        >>> pair.input_gradients(torch.rand(5, 4))
        Traceback (most recent call last):
            ...
        retrace_pl.errors.AccessError: access: the gradient signal needs access=white, this audit has access=gray
    """

    def __init__(
        self,
        original: nn.Module,
        unlearned: nn.Module,
        access: Access | str = Access.BLACK,
        behaviour: Behaviour | None = None,
        memory_format: MemoryFormat = "contiguous",
        autocast: Autocast = "none",
        compile: bool = False,
    ) -> None:
        self.access = Access.parse(access)
        self._execution = Execution(memory_format, autocast, compile)
        self._unchecked = self._execution.rounds
        self.behaviour: Behaviour = behaviour_of(original) if behaviour is None else behaviour
        self._original = original.eval().requires_grad_(False)
        self._unlearned = unlearned.eval().requires_grad_(False)
        self._modules = tuple(dict.fromkeys(chain(original.modules(), unlearned.modules())))
        devices = {tensor.device for tensor in self._tensors(original)} | {t.device for t in self._tensors(unlearned)}
        if len(devices) > 1:
            names = ", ".join(sorted(map(str, devices)))
            raise InputError(f"models: original and unlearned must lie on one device, found {names}")
        first = self._execution.prepared(original, self.device)
        same = unlearned is original
        self._runs = first, first if same else self._execution.prepared(unlearned, self.device)

    @staticmethod
    def _tensors(model: nn.Module) -> chain[Tensor]:
        return chain(model.parameters(), model.buffers())

    @property
    def device(self) -> torch.device:
        """Device of both models; the CPU if they have no tensors."""
        tensors = chain(self._tensors(self._original), self._tensors(self._unlearned))
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Return both models themselves, f+ and f-, for attacks on their parameters; white-box only.

        They are frozen and in eval mode; whoever wants to change one works on a copy.

        Raises:
            AccessError: Black- or gray-box access.
        """
        self.access.require("gradient")
        return self._original, self._unlearned

    def outputs(self, inputs: Any) -> PairValues:
        """Return output probabilities, each of shape [n, ...] and in [0, 1]; allowed at every level.

        Raises:
            RunError: An output is not finite.
        """
        return self.respond(inputs, ("prediction",)).probabilities

    def losses(self, inputs: Any) -> PairValues:
        """Return losses under the original model's labels, each of shape [n], in nats; gray and white.

        Raises:
            AccessError: Black-box access.
            RunError: An output is not finite.
        """
        losses = self.respond(inputs, ("loss",)).losses
        assert losses is not None
        return losses

    def input_gradients(self, inputs: Any) -> PairValues:
        """Return per-sample loss gradients at the differentiable representation, each of shape [n, ...]; white only.

        Raises:
            AccessError: Black- or gray-box access.
            RunError: An output or gradient is not finite.
        """
        gradients = self.respond(inputs, ("gradient",)).gradients
        assert gradients is not None
        return gradients

    def respond(
        self,
        inputs: Any,
        signals: Collection[str] | None = None,
        *,
        check_finite: bool = True,
        label_by: Callable[[Tensor], Tensor] | None = None,
    ) -> PairResponse:
        """Run each model once and return what the named signals need.

        Args:
            inputs: Samples, of the kind the behaviour understands; on any device.
            signals: Signals that the result must serve; all that the access level allows by default.
            check_finite: Look at the result for NaN and infinity. This waits for the device; callers that respond in
                chunks turn it off and call `check_finite` once with what the chunks report.
            label_by: Maps the original model's probabilities, shape [n, ...], to the labels of both models' losses,
                shape [n]; the behaviour's pseudo-labels by default.

        Raises:
            AccessError: A signal is above the access level.
            InputError: No inputs, unknown signal, or outputs of different shape or of the wrong one.
            RunError: An output is not finite, or a model is back in training mode.
        """
        wanted = self.access.signals if signals is None else signals
        for signal in wanted:
            self.access.require(signal)
        if any(module.training for module in self._modules):
            raise RunError("models: original or unlearned was set back to training mode; hand ModelPair a copy")
        if self.behaviour.size(inputs) == 0:
            raise InputError("inputs: the batch is empty; pass at least one input")
        inputs = self.behaviour.to(inputs, self.device)
        if self._unchecked:
            self._check_execution(inputs)
        run = self._with_gradient if "gradient" in wanted else self._without_gradient
        need_losses = "loss" in wanted
        first = run("original", self._runs[0], inputs, None, need_losses, label_by)
        second = run("unlearned", self._runs[1], inputs, first, need_losses, label_by)
        response = PairResponse(
            labels=first.labels,
            probabilities=PairValues(first.probabilities, second.probabilities),
            losses=_pair(first.losses, second.losses),
            gradients=_pair(first.gradients, second.gradients),
            finite=PairValues(first.finite, second.finite),
        )
        if check_finite:
            self.check_finite([response.finite])
        return response

    def _check_execution(self, inputs: Any) -> None:
        """Shows the inputs to the models as they are as well; once."""
        plain = self._original, self._unlearned
        with torch.inference_mode():
            for name, model, fast in zip(("original", "unlearned"), plain, self._runs, strict=True):
                expected = self.behaviour.probabilities(self.behaviour.forward(model, inputs))
                with self._execution.running(self.device):
                    found = self.behaviour.forward(fast, inputs)
                self._execution.check(name, expected, self.behaviour.probabilities(found))
        self._unchecked = False

    @staticmethod
    def check_finite(finite: Collection[PairValues]) -> None:
        """Wait for the device and raise if any of the reported `PairResponse.finite` is false.

        Raises:
            RunError: A model returned NaN or infinity; the message names it.
        """
        columns = (torch.stack(column).all() for column in zip(*finite, strict=True))
        for name, good in zip(("original", "unlearned"), torch.stack(tuple(columns)).tolist(), strict=True):
            if not good:
                raise RunError(
                    f"models: the {name} model returns NaN or infinite values; look at its training"
                    " (a lower learning rate or gradient clipping usually helps) or use float32"
                )

    def _without_gradient(
        self,
        name: str,
        model: nn.Module,
        inputs: Any,
        first: _Single | None,
        need_losses: bool,
        label_by: Callable[[Tensor], Tensor] | None,
    ) -> _Single:
        with torch.inference_mode(), self._execution.running(self.device):
            outputs = self.behaviour.forward(model, inputs)
        with torch.no_grad():
            return self._read(outputs, first, need_losses, label_by)

    def _with_gradient(
        self,
        name: str,
        model: nn.Module,
        inputs: Any,
        first: _Single | None,
        need_losses: bool,
        label_by: Callable[[Tensor], Tensor] | None,
    ) -> _Single:
        with torch.inference_mode(False), torch.enable_grad():
            representation = self.behaviour.differentiable(model, inputs)
            with self._execution.running(self.device):
                outputs = self.behaviour.forward(model, inputs, representation)
            read = self._read(outputs, first, True, label_by)
            assert read.losses is not None
            gradient = None
            if read.losses.requires_grad:
                # Samples do not interact in eval mode, so the gradient of the sum is each sample's own gradient.
                (gradient,) = torch.autograd.grad(read.losses.sum(), representation, allow_unused=True)
        if gradient is None:
            raise RunError(
                f"models: the loss of the {name} model has no gradient at its input (does its forward use no_grad or"
                " detach?); use gray or black access"
            )
        return _Single(
            labels=read.labels,
            probabilities=read.probabilities.detach(),
            losses=read.losses.detach(),
            gradients=gradient,
            finite=read.finite & gradient.isfinite().all(),
        )

    def _read(
        self,
        outputs: Tensor,
        first: _Single | None,
        need_losses: bool,
        label_by: Callable[[Tensor], Tensor] | None,
    ) -> _Single:
        probabilities = self.behaviour.probabilities(outputs)
        if first is None:
            labels = (label_by or self.behaviour.pseudo_labels)(probabilities.detach())
        elif probabilities.shape == first.probabilities.shape:
            labels = first.labels
        else:
            raise InputError(
                f"models: original returns outputs of shape {list(first.probabilities.shape)}, unlearned of shape"
                f" {list(probabilities.shape)}; both must have the same classes"
            )
        finite = outputs.detach().isfinite().all()
        losses = self.behaviour.losses(outputs, labels) if need_losses else None
        if losses is not None:
            finite = finite & losses.detach().isfinite().all()
        return _Single(labels, probabilities, losses, None, finite)


def _pair(original: Tensor | None, unlearned: Tensor | None) -> PairValues | None:
    return None if original is None or unlearned is None else PairValues(original, unlearned)
