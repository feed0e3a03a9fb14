"""GUARD: a wrapper that spares the records whose forgetting would cost the retained ones most."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional

from retrace_pl.errors import InputError, RunError
from retrace_pl.unlearning.base import Batch, Batches, OptimizerName, UnlearningMethod
from retrace_pl.unlearning.negative_gradient import NegativeGradient
from retrace_pl.unlearning.search_space import Choice, Span
from retrace_pl.unlearning.teachers import frozen_copy, prepared

_SMALLEST_SPREAD = 1e-6
"""Alignments that differ by less than this share of their size are equal up to rounding."""


class Guard(UnlearningMethod):
    """Weighs the forget loss of another method by how little each record supports the retained ones (GUARD).

    Rule: `w_i = n_f exp(-a_i / tau) / sum_j exp(-a_j / tau)`, `a_i = <grad l_i, mean_{D_r} grad l>` at the original
    weights, l the cross-entropy, tau the temperature times the standard deviation of a over D_f; the inner method's
    forget losses are multiplied by w_i. Needs the retained and the forget records, and one pass over both first.
    Source: "GUARD: Guided Unlearning And Retention via Data attribution" (2025), proxy attribution and weights.

    A record whose gradient points along that of the retained data would take retained accuracy with it, and gets a low
    weight. All parameters count and nothing is approximated: one forward-mode Jacobian-vector product per
    batch of a frozen copy of the original model gives every a_i of the batch (eval mode, full precision). Weights are
    computed anew in each step, so no record needs an index; with random augmentation they belong to the augmented
    record and sum to n_f on average only. The weights have no upper bound: with few or odd records raise `temperature`.

    Args:
        inner: The method whose forget loss is weighted; it must pass that loss through `forget_mean`
            (`weighs_forget`). None takes `NegativeGradient` with its defaults.
        temperature: Factor of tau, above 0; 1 is published, large values weigh all records alike.
        strength: Multiplies the inner method's own strength, 0 or more.
        epochs: This and the following replace the inner method's, where given.
        lr: Learning rate.
        batch_size: Examples per batch of each stream.
        optimizer: "sgd", "adam" or "adamw".
        weight_decay: Weight decay of the optimiser.

    Raises:
        InputError: A setting is out of range, or the inner method does not weigh its forget loss.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget", "cache"})
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        **UnlearningMethod.search_space,
        "temperature": Span(0.5, 10.0, log=True),
    }

    def __init__(
        self,
        inner: UnlearningMethod | None = None,
        temperature: float = 1.0,
        strength: float = 1.0,
        epochs: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        optimizer: OptimizerName | None = None,
        weight_decay: float | None = None,
    ) -> None:
        inner = NegativeGradient() if inner is None else inner
        if not inner.weighs_forget:
            raise InputError(
                f"Guard.inner is {inner.name}, whose forget loss cannot be weighted; choose another method."
            )
        super().__init__(
            epochs=inner.epochs if epochs is None else epochs,
            lr=inner.lr if lr is None else lr,
            batch_size=inner.batch_size if batch_size is None else batch_size,
            optimizer=inner.optimizer_name if optimizer is None else optimizer,
            momentum=inner.momentum,
            weight_decay=inner.weight_decay if weight_decay is None else weight_decay,
            strength=strength,
            batch_norm=inner.batch_norm,
            scheduler=inner.scheduler,
        )
        if not 0 < temperature < float("inf"):
            raise InputError(f"Guard.temperature is {temperature}; set it to a number above 0.")
        self.temperature = temperature
        self.inner = inner
        inner.forget_weights = self.weights
        self._inner_strength = inner.strength
        self._hand_down()
        self.needs = inner.needs | {"retain", "forget", "cache"}  # type: ignore[misc]
        self.strength_scales_lr = inner.strength_scales_lr  # type: ignore[misc]
        self._original: nn.Module | None = None
        self._retain_gradient: dict[str, Tensor] = {}
        self._tau = 0.0
        self._log_normaliser = 0.0

    @property
    def name(self) -> str:
        """Both names, as in Guard(NegativeGradient)."""
        return f"Guard({self.inner.name})"

    def weights(self, batch: Batch) -> Tensor:
        """The weights of forget records; their mean over the whole forget set is 1.

        Args:
            batch: Inputs and labels of n records.

        Returns:
            One weight per record, `[n]`, above 0.

        Raises:
            RunError: `edit` has not run.
        """
        if not self._retain_gradient:
            raise RunError(f"{self.name} has no weights yet; call edit(model, retain_loader, forget_loader) first.")
        if self._tau == 0:
            return torch.ones(len(batch[1]), device=batch[1].device)
        return torch.exp(-self.alignments(batch) / self._tau - self._log_normaliser)

    def alignments(self, batch: Batch) -> Tensor:
        """How far each record's gradient points along the mean retain gradient.

        Args:
            batch: Inputs and labels of n records.

        Returns:
            `a_i = <grad l_i, mean_{D_r} grad l>` at the original weights, `[n]`, single precision.
        """
        parameters = self._parameters()
        with torch.autocast(batch[1].device.type, enabled=False), warnings.catch_warnings():
            # torch compiles some of its own forward-mode rules with what it calls deprecated itself
            warnings.filterwarnings("ignore", message="`torch.jit.script`", category=FutureWarning)
            result = jvp(lambda at: self._losses(at, batch), (parameters,), (self._retain_gradient,))
        return torch.as_tensor(result[1]).detach().float()

    def prepare(self, model: nn.Module) -> None:
        """Keeps the original model, at whose weights the alignments are taken, and prepares the inner method."""
        self._hand_down()
        self._original = frozen_copy(model)
        self._retain_gradient = {}
        self.inner.prepare(model)

    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Computes the mean retain gradient, tau and the normaliser; then the inner method's own edit.

        Args:
            model: Passed to the inner method.
            retain_loader: One pass over the retained records.
            forget_loader: One pass over the records to forget.

        Raises:
            InputError: A stream has no records.
            RunError: The alignments are not finite.
        """
        self._retain_gradient = self._mean_gradient(retain_loader)
        parts = [self.alignments(batch).double().cpu() for batch in forget_loader]
        if not parts:
            raise InputError(f"{self.name} found no record to forget; check the data's deletion settings.")
        a = torch.cat(parts)
        spread = float(a.std(correction=0))
        if not math.isfinite(spread):
            raise RunError(f"{self.name}: gradients of the original model are not finite; train it again.")
        distinct = spread > _SMALLEST_SPREAD * float(a.abs().max())
        self._tau = self.temperature * spread if distinct else 0.0
        if distinct:
            self._log_normaliser = float(torch.logsumexp(-a / self._tau, 0)) - math.log(len(a))
        self.inner.edit(model, retain_loader, forget_loader)

    def _mean_gradient(self, loader: Batches) -> dict[str, Tensor]:
        parameters = {name: value.clone() for name, value in self._parameters().items()}
        total = {name: torch.zeros_like(value) for name, value in parameters.items()}
        records = 0
        for batch in loader:
            with torch.enable_grad(), torch.autocast(batch[1].device.type, enabled=False):
                leaves = {name: value.requires_grad_() for name, value in parameters.items()}
                loss = self._losses(leaves, batch).sum()
                gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
            for name, gradient in zip(total, gradients, strict=True):
                total[name] += gradient
            records += len(batch[1])
        if records == 0:
            raise InputError(f"{self.name} found no retained record; it needs the retain stream.")
        return {name: value / records for name, value in total.items()}

    def _hand_down(self) -> None:
        """Gives the inner method the settings, which a driver may have replaced since."""
        inner = self.inner
        inner.epochs, inner.lr, inner.batch_size = self.epochs, self.lr, self.batch_size
        inner.optimizer_name, inner.weight_decay, inner.scheduler = (
            self.optimizer_name,
            self.weight_decay,
            self.scheduler,
        )
        inner.strength = self.strength * self._inner_strength

    def _parameters(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in prepared(self._original, self.name).named_parameters()}

    def _losses(self, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        logits = functional_call(prepared(self._original, self.name), dict(parameters), (batch[0],))
        return functional.cross_entropy(logits, batch[1], reduction="none")

    def configure_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The inner method's optimiser."""
        self._hand_down()
        return self.inner.configure_optimizer(parameters)

    def set_mode(self, model: nn.Module) -> None:
        """The inner method's mode."""
        self.inner.set_mode(model)

    def bind_backward(self, backward: Callable[[Tensor], None] | None) -> None:
        """Binds the inner method's `backward`."""
        self.inner.bind_backward(backward)

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """The inner method's step, in which it asks for the weights of its batch."""
        return self.inner.unlearn_step(model, retain_batch, forget_batch, optimizer, step, epoch)

    def finish(self, model: nn.Module) -> None:
        """The inner method's finish."""
        self.inner.finish(model)

    def state_dict(self) -> dict[str, Any]:
        """The mean retain gradient, tau, the normaliser and the inner method's state."""
        return {
            "retain_gradient": self._retain_gradient,
            "tau": self._tau,
            "log_normaliser": self._log_normaliser,
            "inner": self.inner.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes them back."""
        place = self._parameters()
        self._retain_gradient = {name: value.to(place[name]) for name, value in state["retain_gradient"].items()}
        self._tau = float(state["tau"])
        self._log_normaliser = float(state["log_normaliser"])
        self.inner.load_state_dict(state["inner"])
