"""The benchmark's four baselines exactly as published; the zoo's classes of the same names have other defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from retrace_pl.unlearning import Batch, NegativeGradient, RetainFineTune, UnlearningMethod
from retrace_pl.unlearning.teachers import distillation_losses, frozen_copy


class PublishedBadTeacher(UnlearningMethod):
    """MLS-Bench's bad_teacher: one pass over [retain; forget], each half taught by its own frozen teacher.

    Rule: `min KL(target || p)` averaged over both halves, temperature 1; the target of a retained record is the
    original model's prediction, that of a forget record the prediction of a copy with fresh weights. As published, the
    fresh copy keeps the *trained* batch-norm running statistics, which do not fit its weights, so that its predictions
    are arbitrary but confident, and overflow in deep models; such a run ends as not finite.
    Source: the benchmark's adaptation of Chundawat et al. (2023).

    Args:
        seed: Seed of the fresh weights.
        kwargs: The settings of `UnlearningMethod`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget"})

    def __init__(self, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed

    def prepare(self, model: nn.Module) -> None:
        """Makes both teachers."""
        self.competent = frozen_copy(model)
        self.incompetent = frozen_copy(model)
        redraw_weights(self.incompetent, torch.Generator().manual_seed(self.seed))

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """One step on both halves; see `UnlearningMethod.unlearn_step`."""
        inputs = torch.cat([retain_batch[0], forget_batch[0]])
        with torch.no_grad():
            targets = torch.cat([self.competent(retain_batch[0]), self.incompetent(forget_batch[0])])
        loss = distillation_losses(model(inputs), targets).mean()
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return {"loss": loss.detach()}


class PublishedSCRUB(UnlearningMethod):
    """MLS-Bench's scrub: two epochs that also push the forget batch away from the teacher, then distillation alone.

    Rule: with `D(S) = T^2 KL(p_theta0 || p)` at temperature T = 4, each step of the first 2 epochs ascends D(forget)
    with one optimiser step of its own; then every step descends `0.99 CE(retain) + 0.01 D(retain)`.
    Source: the benchmark's adaptation of Kurmanji et al. (2023).

    Args:
        kwargs: The settings of `UnlearningMethod`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget"})
    temperature: ClassVar[float] = 4.0
    max_epochs: ClassVar[int] = 2
    alpha: ClassVar[float] = 0.01
    gamma: ClassVar[float] = 0.99

    def prepare(self, model: nn.Module) -> None:
        """Makes the teacher."""
        self.teacher = frozen_copy(model)

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """One or two optimiser steps; see `UnlearningMethod.unlearn_step`."""
        if epoch < self.max_epochs:
            optimizer.zero_grad()
            self.backward(-self._divergence(forget_batch[0], model(forget_batch[0])))
            optimizer.step()
        optimizer.zero_grad()
        logits = model(retain_batch[0])
        cross_entropy = functional.cross_entropy(logits, retain_batch[1])
        loss = self.gamma * cross_entropy + self.alpha * self._divergence(retain_batch[0], logits)
        self.backward(loss)
        optimizer.step()
        return {"loss": loss.detach()}

    def _divergence(self, inputs: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            targets = self.teacher(inputs)
        return distillation_losses(logits, targets, self.temperature).mean()


def redraw_weights(model: nn.Module, generator: torch.Generator) -> None:
    """Draws convolution and linear weights anew as the benchmark's re-initialisation does.

    Kaiming-normal (fan_out, fan_in); linear biases 0; batch-norm scale 1 and shift 0. Convolution biases and the
    running statistics of batch normalisation stay as they are: that is the published definition.

    Args:
        model: Changed in place; any device.
        generator: CPU generator.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            mode = "fan_out" if isinstance(module, nn.Conv2d) else "fan_in"
            fresh = torch.empty_like(module.weight, device="cpu")
            nn.init.kaiming_normal_(fresh, mode=mode, nonlinearity="relu", generator=generator)  # type: ignore[arg-type]
            module.weight.data.copy_(fresh)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


BASELINES: dict[str, Callable[..., UnlearningMethod]] = {
    "retain_finetune": RetainFineTune,
    "negative_gradient": lambda **kwargs: NegativeGradient(form="mls_bench", **kwargs),
    "bad_teacher": PublishedBadTeacher,
    "scrub": PublishedSCRUB,
}
"""Name -> factory that takes the recipe: epochs, lr, batch_size, optimizer, weight_decay."""
