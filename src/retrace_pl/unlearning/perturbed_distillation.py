"""Perturbs the original weights, then distils the original model without the deleted class on retained records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.unlearning.base import Batch, UnlearningMethod, at_least, in_unit_interval
from retrace_pl.unlearning.joint import joint_logits
from retrace_pl.unlearning.search_space import Choice, Span
from retrace_pl.unlearning.teachers import distillation_losses, frozen_copy


class PerturbedDistillation(UnlearningMethod):
    """Breaks what the weights memorised, then teaches back only what the original knows of the retained classes.

    Rule: before the first step every weight tensor W of the original model, the first to the last, becomes

        `c W + sqrt(1 - c^2) rms(W) N(0, I)`, `c = max(0, 1 - strength (1 - keep))`,

    with `keep` going evenly from `keep_first` to `keep_last`: c is the expected cosine between old and new weights,
    and their size stays the same. Then it descends, on retained records,

        `cross_entropy L + distillation T^2 KL(softmax(m(z+) / T) || softmax(z / T))`
        `+ forget_weight KL(softmax(m(z+)) || softmax(z))` on the forget records,

    z+ the logits of the original model, m the mask that sets those of deleted classes to -inf, z the logits of the
    model that unlearns, T the temperature. The learning rate falls along a half cosine from `lr_factor` times the
    optimiser's own to 0. Needs retained records, and of forget records the labels, which name the deleted classes;
    their inputs are used with `forget_weight` above 0 only.
    Source: our own combination. Perturbed weights are from "shrink and perturb" (Ash and Adams, 2020) and, for
    unlearning with distillation afterwards, UNDO (Lee et al., 2025); the masked teacher is that of DELETE (2025).

    The reason for it: a loss on the forget records fits them better than unseen records of their class, so that the
    confidence tells the two apart again, and a teacher that was trained on them tells them apart to begin with;
    without such a loss the original's memory of them fades slowly. Noise has no memory of any record, and the
    teacher, asked about retained records only, brings the accuracy back in a few epochs. There is no guarantee: what
    is left of the original weights may still hold something, and retraining stays the reference.

    A class counts as deleted while forget records of it have been seen and no retained one, so that nothing is masked
    where single records are deleted. Everything happens within `unlearn_step`, so that a driver with no other hook
    can run it. The number of steps in an epoch is known from the second epoch on; the rate stays at its peak in the
    first.

    Args:
        epochs: Passes over the longer of the two streams; the cosine ends with the last.
        lr: Learning rate; its peak is `lr_factor` times as high.
        optimizer: "sgd", "adam" or "adamw".
        keep_first: Cosine of the first weight tensor with the original, in [0, 1]; 1 leaves it as it is, 0 draws it
            anew. Less forgets more and costs accuracy.
        keep_last: That of the last weight tensor.
        distillation: Weight of the divergence from the teacher, 0 or more.
        cross_entropy: Weight of the labels' loss, 0 or more.
        temperature: T, above 0.
        mask: Whether the deleted classes are masked in the teacher.
        forget_weight: Weight of the term on forget records, 0 or more.
        lr_factor: Peak of the learning rate as a multiple of the optimiser's own, above 0.
        anneal: Whether the rate falls; False keeps it at the peak.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the distance of c from 1.

    Raises:
        InputError: A setting is out of range, or there is a scheduler besides the cosine.
    """

    _retained: Tensor | None
    _forgotten: Tensor | None
    _base_rates: list[float]
    _steps_per_epoch: float | None

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget"})
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(1e-4, 1e-2, log=True),
        "epochs": Span(3, 20),
        "keep_first": Span(0.3, 1.0),
        "keep_last": Span(0.0, 1.0),
        "temperature": Span(1.0, 4.0),
    }

    def __init__(
        self,
        epochs: int = 20,
        lr: float = 1e-3,
        optimizer: Any = "adam",
        keep_first: float = 0.7,
        keep_last: float = 0.7,
        distillation: float = 1.0,
        cross_entropy: float = 1.0,
        temperature: float = 2.0,
        mask: bool = True,
        forget_weight: float = 0.0,
        lr_factor: float = 3.0,
        anneal: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, optimizer=optimizer, **kwargs)
        in_unit_interval("keep_first", keep_first, self.name)
        in_unit_interval("keep_last", keep_last, self.name)
        at_least("distillation", distillation, 0, self.name)
        at_least("cross_entropy", cross_entropy, 0, self.name)
        at_least("forget_weight", forget_weight, 0, self.name)
        for setting, value in (("temperature", temperature), ("lr_factor", lr_factor)):
            if not 0 < value < float("inf"):
                raise InputError(f"{self.name}.{setting} is {value}; set it to a number above 0.")
        if distillation == cross_entropy == 0:
            raise InputError(f"{self.name}.distillation and cross_entropy are both 0; raise one of them.")
        if anneal and self.scheduler is not None:
            raise InputError(f"{self.name}.scheduler is set besides the cosine; leave it out or set anneal to false.")
        self.keep_first = keep_first
        self.keep_last = keep_last
        self.distillation = distillation
        self.cross_entropy = cross_entropy
        self.temperature = temperature
        self.mask = mask
        self.forget_weight = forget_weight
        self.lr_factor = lr_factor
        self.anneal = anneal
        self.teacher: nn.Module | None = None
        self._reset()

    def prepare(self, model: nn.Module) -> None:
        """Keeps the original model as the teacher.

        Args:
            model: The original model.
        """
        self.teacher = frozen_copy(model)
        self._reset()

    def cosines(self, tensors: int) -> list[float]:
        """The cosine c of each weight tensor with the original, first to last; a single one is the last.

        Args:
            tensors: How many there are.
        """
        depths = [k / (tensors - 1) for k in range(tensors)] if tensors > 1 else [1.0]
        keeps = [self.keep_first + (self.keep_last - self.keep_first) * depth for depth in depths]
        return [max(0.0, 1 - self.strength * (1 - keep)) for keep in keeps]

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """One step of the second phase; step 0 perturbs first. See `UnlearningMethod.unlearn_step`."""
        if self.teacher is None:
            self.prepare(model)
        assert self.teacher is not None
        groups = getattr(optimizer, "optimizer", optimizer).param_groups  # Lightning wraps it
        if step == 0:
            self._reset()
            self._base_rates = [float(group["lr"]) for group in groups]
            self._perturb(model)
        rate_factor = self._rate_factor(step, epoch)
        for group, base in zip(groups, self._base_rates, strict=True):
            group["lr"] = base * rate_factor

        inputs, labels = retain_batch
        forget_term = self.forget_weight > 0
        if forget_term:
            logits, forget_logits = joint_logits(model, inputs, forget_batch[0])
        else:
            logits = model(inputs)
        deleted = self._deleted(labels, forget_batch[1], logits.shape[1])
        label_loss = functional.cross_entropy(logits, labels)
        teacher_loss = distillation_losses(logits, self._targets(inputs, deleted), self.temperature).mean()
        loss = self.cross_entropy * label_loss + self.distillation * teacher_loss
        result = {"retain_loss": label_loss.detach(), "retain_kl": teacher_loss.detach(), "rate_factor": rate_factor}
        if forget_term:
            away = distillation_losses(forget_logits, self._targets(forget_batch[0], deleted)).mean()
            loss = loss + self.forget_weight * away
            result["forget_kl"] = away.detach()
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return result | {"loss": loss.detach()}

    def state_dict(self) -> dict[str, Any]:
        """The classes seen, the optimiser's own rates and the length of an epoch."""
        return {
            "retained": self._retained,
            "forgotten": self._forgotten,
            "base_rates": list(self._base_rates),
            "steps_per_epoch": self._steps_per_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes them back.

        Args:
            state: What `state_dict` returned.
        """
        self._retained, self._forgotten = state["retained"], state["forgotten"]
        self._base_rates = list(state["base_rates"])
        self._steps_per_epoch = state["steps_per_epoch"]

    def _reset(self) -> None:
        self._retained = None
        self._forgotten = None
        self._base_rates = []
        self._steps_per_epoch = None

    @torch.no_grad()
    def _perturb(self, model: nn.Module) -> None:
        """Mixes the weight tensors with noise; biases and the scales of normalisation layers stay."""
        weights = [weight for weight in model.parameters() if weight.dim() > 1 and weight.requires_grad]
        for weight, cosine in zip(weights, self.cosines(len(weights)), strict=True):
            # drawn on the CPU, so that the noise does not depend on the device
            noise = torch.randn(weight.shape, dtype=weight.dtype).to(weight.device)
            size = weight.square().mean().sqrt()
            weight.mul_(cosine).add_(noise * size, alpha=math.sqrt(1 - cosine**2))

    def _rate_factor(self, step: int, epoch: int) -> float:
        if not self.anneal or epoch == 0:
            return self.lr_factor
        if self._steps_per_epoch is None:
            self._steps_per_epoch = step / epoch
        done = min(1.0, step / (self._steps_per_epoch * max(self.epochs, 1)))
        return self.lr_factor * (1 + math.cos(math.pi * done)) / 2

    def _deleted(self, retained: Tensor, forgotten: Tensor, num_classes: int) -> Tensor:
        """Which classes only forget records have had so far, bool `[K]`."""
        none = torch.zeros(num_classes, dtype=torch.bool, device=retained.device)
        self._retained = none.clone() if self._retained is None else self._retained.to(none.device)
        self._forgotten = none.clone() if self._forgotten is None else self._forgotten.to(none.device)
        self._retained[retained] = True
        self._forgotten[forgotten] = True
        return self._forgotten & ~self._retained if self.mask else none

    @torch.no_grad()
    def _targets(self, inputs: Tensor, deleted: Tensor) -> Tensor:
        """The teacher's logits with those of deleted classes at -inf."""
        assert self.teacher is not None
        logits: Tensor = self.teacher(inputs)
        return logits.masked_fill(deleted, float("-inf"))
