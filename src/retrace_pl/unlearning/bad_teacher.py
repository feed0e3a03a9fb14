"""Distillation from the original model on what stays and from a random one on what goes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from retrace_pl.errors import RunError
from retrace_pl.models.init import initialise
from retrace_pl.unlearning.base import Batch, Batches, OptimizerName, UnlearningMethod, one_of
from retrace_pl.unlearning.joint import joint_logits
from retrace_pl.unlearning.reinitialise import reinitialise
from retrace_pl.unlearning.search_space import Choice, Span
from retrace_pl.unlearning.teachers import distillation_losses, estimate_batch_norm, frozen_copy, prepared

Form = Literal["published", "mls_bench"]
Statistics = Literal["estimated", "inherited"]


class BadTeacher(UnlearningMethod):
    """Distils from the original model on retained records and from an incompetent one on the records to forget.

    Rule: `min mean over D_r of KL(p_theta0 || p) + strength mean over D_f of KL(p_random || p)` (form "published"), or
    `(sum over the retain batch of KL(p_theta0 || p) + strength sum over the forget batch of KL(p_random || p)) / n`,
    n the records of both (form "mls_bench": one batch mean over the concatenated batch). In both forms one pass over
    both batches, one optimiser step, no temperature. theta_0 are the original weights, p_random the predictions of the
    same network with fresh weights; both teachers are frozen. Needs the retained and the forget records, and the
    retained ones once more beforehand ("cache").
    Source: Chundawat et al. (2023), "Can bad teaching induce forgetting?"; the second form is the bad_teacher baseline
    of MLS-Bench.

    A random network whose batch normalisation divides by the statistics of other weights has outputs that grow from
    layer to layer, up to NaN. So its statistics are estimated on the retained records before the first step; with
    `statistics="inherited"`, as in MLS-Bench, they are those of the original model, and a run that breaks for that
    reason says so.

    Args:
        epochs: Passes over the longer of the two streams.
        lr: Learning rate; 1e-4 is published.
        optimizer: "adam", "adamw" or "sgd".
        form: "published" or "mls_bench"; the second also draws the random teacher as MLS-Bench does: Kaiming-normal,
            and biases of convolutions stay as they were trained.
        statistics: "estimated" or "inherited", of the random teacher's batch normalisation.
        seed: Seed of the random teacher.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the weight of the forget records.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget", "cache"})
    weighs_forget: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(1e-4, 1e-2, log=True),
        "epochs": Span(1, 15),
        "strength": Span(0.1, 10.0, log=True),
        "batch_size": Choice((64, 128)),
        "batch_norm": Choice(("update", "freeze")),
    }

    def __init__(
        self,
        epochs: int = 1,
        lr: float = 1e-4,
        optimizer: OptimizerName = "adam",
        form: Form = "published",
        statistics: Statistics = "estimated",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, optimizer=optimizer, **kwargs)
        one_of("form", form, ("published", "mls_bench"), self.name)
        one_of("statistics", statistics, ("estimated", "inherited"), self.name)
        self.form: Form = form
        self.statistics: Statistics = statistics
        self.seed = seed
        self.competent: nn.Module | None = None
        self.incompetent: nn.Module | None = None
        self._estimated = False

    def prepare(self, model: nn.Module) -> None:
        """Makes the two teachers.

        Args:
            model: The original model.

        Raises:
            InputError: A module of the model cannot be re-initialised.
        """
        self.competent = frozen_copy(model)
        random = copy.deepcopy(model)
        if self.form == "mls_bench":
            generator = torch.Generator(next(model.parameters()).device).manual_seed(self.seed)
            initialise(random, generator)
            _copy_convolution_biases(model, random)
        else:
            reinitialise(random, self.seed, self.name)
        _copy_statistics(model, random)
        self.incompetent = frozen_copy(random)
        self._estimated = self.statistics == "inherited" or not _statistics(random)

    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Estimates the random teacher's batch-norm statistics; the model stays as it is."""
        if self.statistics == "estimated":
            estimate_batch_norm(prepared(self.incompetent, self.name), retain_loader)
            self._estimated = True

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """One step towards both teachers; see `UnlearningMethod.unlearn_step`.

        Raises:
            RunError: The driver left out `prepare`, or `edit` where statistics are to be estimated.
        """
        if not self._estimated:
            raise RunError(f"{self.name} has not estimated its teacher's statistics; call prepare and edit before.")
        with torch.no_grad():
            retain_targets = prepared(self.competent, self.name)(retain_batch[0])
            forget_targets = prepared(self.incompetent, self.name)(forget_batch[0])
        retain_logits, forget_logits = joint_logits(model, retain_batch[0], forget_batch[0])
        retain_loss = distillation_losses(retain_logits, retain_targets).mean()
        forget_loss = self.forget_mean(distillation_losses(forget_logits, forget_targets), forget_batch)
        retain_weight, forget_weight = self.weights(len(retain_logits), len(forget_logits))
        loss = retain_weight * retain_loss + forget_weight * forget_loss
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return {"loss": loss.detach(), "retain_kl": retain_loss.detach(), "forget_kl": forget_loss.detach()}

    def weights(self, retained: int, forgotten: int) -> tuple[float, float]:
        """The weights of the two mean divergences, for batches of that many records."""
        if self.form == "published":
            return 1.0, self.strength
        records = retained + forgotten
        return retained / records, self.strength * forgotten / records

    def state_dict(self) -> dict[str, Any]:
        """The random teacher's batch-norm statistics."""
        if self.incompetent is None:
            return {"statistics": {}}
        return {"statistics": {name: value.clone() for name, value in _statistics(self.incompetent).items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the statistics back; the weights follow from the seed."""
        teacher = prepared(self.incompetent, self.name)
        for name, value in _statistics(teacher).items():
            value.copy_(state["statistics"][name])
        self._estimated = True


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    """The running statistics of every batch-norm layer, by name; the tensors are those of the model."""
    return {
        f"{name}.{key}": value
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm)
        for key, value in layer.named_buffers(recurse=False)
    }


@torch.no_grad()
def _copy_convolution_biases(source: nn.Module, target: nn.Module) -> None:
    for trained, fresh in zip(source.modules(), target.modules(), strict=True):
        if isinstance(trained, nn.Conv2d) and isinstance(fresh, nn.Conv2d) and trained.bias is not None:
            cast(Tensor, fresh.bias).copy_(trained.bias)


def _copy_statistics(source: nn.Module, target: nn.Module) -> None:
    values = _statistics(source)
    for name, value in _statistics(target).items():
        value.copy_(values[name])
