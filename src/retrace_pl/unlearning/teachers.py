"""Frozen models that teach the one that is unlearning, and the divergence that measures how far it is from them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from retrace_pl.errors import RunError
from retrace_pl.unlearning.base import Batches


def frozen_copy(model: nn.Module) -> nn.Module:
    """Copies a model as it is now, for use as a teacher.

    Args:
        model: Any model; it is not changed.

    Returns:
        A deep copy on the same device, in eval mode, whose parameters require no gradients. Keep it as a plain
        attribute of the method: it is part of neither the model nor its checkpoints.
    """
    return copy.deepcopy(model).eval().requires_grad_(False)


def prepared(teacher: nn.Module | None, owner: str) -> nn.Module:
    """Returns the teacher, or raises RunError where the driver left out `prepare`."""
    if teacher is None:
        raise RunError(f"{owner} has no teacher yet; call prepare(model) before the first step.")
    return teacher


def distillation_losses(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """The divergence of the student's prediction from the teacher's, record by record.

    `T^2 KL(softmax(teacher / T) || softmax(student / T))`; the factor T^2 keeps the size of the gradient the same for
    every T (Hinton et al., 2015). Classes to which the teacher gives probability 0, as with a logit of -inf, add
    nothing.

    Args:
        student_logits: `[n, K]`.
        teacher_logits: `[n, K]`; no gradient flows into them.
        temperature: T, above 0.

    Returns:
        One divergence per record, `[n]`, 0 or more.
    """
    student = functional.log_softmax(student_logits / temperature, dim=1)
    teacher = functional.softmax(teacher_logits.detach() / temperature, dim=1)
    return functional.kl_div(student, teacher, reduction="none").sum(1) * temperature**2


@torch.no_grad()
def estimate_batch_norm(model: nn.Module, batches: Batches) -> None:
    """Replaces the running statistics of every batch-norm layer by averages over data.

    Each layer gets the mean of its batch statistics, all batches counting the same; the layers before it are in train
    mode too, as they are when a model learns its statistics.

    Args:
        model: The model, changed in place; its layers end in eval mode.
        batches: The data; batches of one record, which have no variance, are left out.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
        layer.train()
    for inputs, labels in batches:
        if len(labels) > 1:
            model(inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()
