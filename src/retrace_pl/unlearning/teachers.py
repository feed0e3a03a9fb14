"""Frozen models that teach the one that is unlearning, and the divergence that measures how far it is from them."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn import functional


def frozen_copy(model: nn.Module) -> nn.Module:
    """Copies a model as it is now, for use as a teacher.

    Args:
        model: Any model; it is not changed.

    Returns:
        A deep copy on the same device, in eval mode, whose parameters require no gradients. Keep it as a plain
        attribute of the method: it is part of neither the model nor its checkpoints.
    """
    return copy.deepcopy(model).eval().requires_grad_(False)


def distillation_losses(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """The divergence of the student's prediction from the teacher's, record by record.

    `T^2 KL(softmax(teacher / T) || softmax(student / T))`; the factor T^2 keeps the size of the gradient the same for
    every T (Hinton et al., 2015).

    Args:
        student_logits: `[n, K]`.
        teacher_logits: `[n, K]`; no gradient flows into them.
        temperature: T, above 0.

    Returns:
        One divergence per record, `[n]`, 0 or more.
    """
    student = functional.log_softmax(student_logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits.detach() / temperature, dim=1)
    divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    return divergence * temperature**2
