"""Certified fine-tuning: clipped weights, clipped and noisy steps on the retained records, then ordinary ones."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from retrace_pl.errors import InputError
from retrace_pl.unlearning.base import Batch, Batches, UnlearningMethod, at_least
from retrace_pl.unlearning.certificate import noisy_steps_epsilon, noisy_steps_sigma
from retrace_pl.unlearning.search_space import Choice, Span

_log = logging.getLogger(__name__)


class NoisyFineTune(UnlearningMethod):
    """Hides which model it started from under noise, then trains on the retained records: (epsilon, delta)-unlearning.

    Rule: `theta <- theta min(1, clip_weights / |theta|)`; then `noisy_steps` times
    `theta <- (1 - lr weight_decay) theta - lr clip(grad L(D_r)) + N(0, (strength sigma)^2 I)`, the norm of the whole
    gradient clipped to `clip_norm`; then ordinary fine-tuning on `L(D_r)` with the optimiser. L is the mean
    cross-entropy of a batch. Needs the retained records.
    Source: Koloskova et al. (2025), "Certified unlearning for neural networks" (gradient clipping); sigma and its
    proof in `retrace_pl.unlearning.certificate.noisy_steps_sigma`, with distance `2 clip_weights` at the start, drift
    `2 lr clip_norm` per step and contraction `1 - lr weight_decay`.

    The guarantee. Let R be the same procedure started from any other weights, for instance those of a model retrained
    without the forget records. For every event S, `P(theta in S) <= e^epsilon P(R in S) + delta`, and the other way
    round. It covers the final weights and batch-norm statistics of one deletion request, assumes nothing about the
    loss or the training, and holds because the noisy steps hide the start and everything later is post-processing
    that sees retained records alone.

    It does NOT cover:

    - an adversary who also holds the original model, whose weights contain the forget records untouched: this is the
      adversary of an audit with both models, and the certificate promises nothing against it;
    - the privacy of the retained records: this is no differential privacy of training;
    - the number of forget records, checkpoints and logged values from within the noisy steps (only the last iterate
      is hidden), several requests (compose them), or settings chosen by looking at the forget records.

    It is void if the noise can be recomputed (torch's global generator is seeded: keep the seed secret where the
    certificate matters), if the model holds statistics of the data in buffers other than those of its normalisation
    layers, in exact arithmetic only, and with `strength=0`. With `strength` other than 1 it holds with the epsilon
    that `guarantee` returns instead.

    In a network of d weights the noise has a norm of about `2 clip_weights sqrt(d)` times a factor that at epsilon 1
    is near 5, so next to nothing of the original model is left at a small epsilon: the cost and the accuracy are
    those of training from a random start. That is what a certificate without convexity costs.

    Args:
        epochs: Passes over the retained records, those of the noisy steps included.
        lr: Learning rate of both phases.
        epsilon: Of the certificate, above 0.
        delta: Of the certificate, strictly between 0 and 1; well below one over the number of records.
        clip_weights: Norm to which all weights together are scaled down, above 0; it sets the size of the noise, and
            so of the random start: aim at noise of the size of an initialisation.
        clip_norm: Largest norm of the gradient in a noisy step, 0 or more.
        noisy_steps: Number of noisy steps, at least 1.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies sigma, `weight_decay` acts in both
            phases, optimiser and momentum in the second. Batch norm must be "update": kept statistics of the original
            model would void the certificate; for the same reason there is no scheduler.

    Raises:
        InputError: A setting is out of range or voids the certificate.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain"})
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "clip_weights": Span(1e-3, 5e-2, log=True),
        "noisy_steps": Span(1, 20),
        "lr": Span(3e-2, 5e-1, log=True),
        "epochs": Span(10, 30),
    }

    def __init__(
        self,
        epochs: int = 20,
        lr: float = 1e-1,
        epsilon: float = 1.0,
        delta: float = 1e-5,
        clip_weights: float = 0.01,
        clip_norm: float = 0.01,
        noisy_steps: int = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, **kwargs)
        for setting, value in (("epsilon", epsilon), ("clip_weights", clip_weights)):
            if not 0 < value < float("inf"):
                raise InputError(f"{self.name}.{setting} is {value}; set it to a number above 0.")
        if not 0 < delta < 1:
            raise InputError(f"{self.name}.delta is {delta}; set it to a number between 0 and 1.")
        at_least("clip_norm", clip_norm, 0, self.name)
        at_least("noisy_steps", noisy_steps, 1, self.name)
        if lr * self.weight_decay > 1:
            raise InputError(f"{self.name}.weight_decay is {self.weight_decay}; set it to at most 1 / lr.")
        if self.batch_norm != "update":
            raise InputError(f"{self.name}.batch_norm is {self.batch_norm!r}, which voids the certificate; use update.")
        if self.scheduler is not None:
            raise InputError(f"{self.name}.scheduler is set, which the certificate does not cover; leave it out.")
        self.epsilon = epsilon
        self.delta = delta
        self.clip_weights = clip_weights
        self.clip_norm = clip_norm
        self.noisy_steps = noisy_steps
        self._noisy_done = 0
        self._plain_done = 0

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise of each noisy step, before `strength`."""
        return noisy_steps_sigma(
            self.epsilon,
            self.delta,
            start=2 * self.clip_weights,
            drift=2 * self.lr * self.clip_norm,
            contraction=1 - self.lr * self.weight_decay,
            steps=self.noisy_steps,
        )

    def guarantee(self) -> dict[str, float]:
        """The certificate for what was done so far.

        Returns:
            `epsilon` (infinite: there is none) and `delta`, for the noisy steps taken and the noise they had.
        """
        epsilon = noisy_steps_epsilon(
            self.strength * self.sigma,
            self.delta,
            start=2 * self.clip_weights,
            drift=2 * self.lr * self.clip_norm,
            contraction=1 - self.lr * self.weight_decay,
            steps=self._noisy_done,
        )
        return {"epsilon": epsilon, "delta": self.delta}

    def prepare(self, model: nn.Module) -> None:
        """Counts from 0 again."""
        self._noisy_done, self._plain_done = 0, 0

    @torch.no_grad()
    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Clips the weights and drops the statistics of the original model.

        Args:
            model: The original model, changed in place.
            retain_loader: Not read.
            forget_loader: Not read.
        """
        norm = math.sqrt(sum(float(weight.double().square().sum()) for weight in model.parameters()))
        for weight in model.parameters():
            weight.mul_(min(1.0, self.clip_weights / max(norm, 1e-30)))
        _reset_statistics(model)

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """One noisy step, or an ordinary one once they are done; see `UnlearningMethod.unlearn_step`.

        The optimiser is not used in a noisy step, whose rule is part of the proof. "epsilon" is that of `guarantee`.
        """
        inputs, labels = retain_batch
        loss = functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        self.backward(loss)
        if self._noisy_done < self.noisy_steps:
            self._noisy_step(model)
            self._noisy_done += 1
            if self._noisy_done == self.noisy_steps:
                _reset_statistics(model)  # they followed the earlier iterates, which the noise does not hide
        else:
            optimizer.step()
            self._plain_done += 1
        return {"loss": loss.detach(), **self.guarantee()}

    def finish(self, model: nn.Module) -> None:
        """Says what is guaranteed; statistics from within the noisy steps are dropped.

        Args:
            model: The model that has unlearnt.
        """
        if self._plain_done == 0 and _reset_statistics(model):
            _log.warning(
                "%s ended with its noisy steps, so its batch-norm statistics are unset; give it more epochs.", self.name
            )
        _log.info("%s: (%.4g, %.4g)-unlearning, see its documentation", self.name, *self.guarantee().values())

    def state_dict(self) -> dict[str, Any]:
        """How many steps of each kind were taken."""
        return {"noisy_done": self._noisy_done, "plain_done": self._plain_done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the counts back."""
        self._noisy_done, self._plain_done = int(state["noisy_done"]), int(state["plain_done"])

    @torch.no_grad()
    def _noisy_step(self, model: nn.Module) -> None:
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
        scale = min(1.0, self.clip_norm / max(norm, 1e-30))
        for weight in model.parameters():
            weight.mul_(1 - self.lr * self.weight_decay)
            if weight.grad is not None:
                weight.add_(weight.grad, alpha=-self.lr * scale)
            weight.add_(torch.randn_like(weight), alpha=self.strength * self.sigma)


def _reset_statistics(model: nn.Module) -> bool:
    """Resets the running statistics of all normalisation layers; whether there are any."""
    layers = [layer for layer in model.modules() if isinstance(layer, _NormBase) and layer.track_running_stats]
    for layer in layers:
        layer.reset_running_stats()
    return bool(layers)
