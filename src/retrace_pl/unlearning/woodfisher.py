"""Influence unlearning: one Newton step away from the forget records, with the Fisher matrix for the Hessian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.unlearning.base import Batches, UnlearningMethod, at_least
from retrace_pl.unlearning.gradients import evaluating, record_gradients, trained_weights
from retrace_pl.unlearning.search_space import Choice, Span


class WoodFisherInfluence(UnlearningMethod):
    """Moves the weights to where they would be had the forget records not been there, to first order (no training).

    Rule: `theta += strength alpha H^-1 g`, with `g = (1/n) sum_f grad l`, n all records, and
    `H = damping I + (1/N) sum_i g_i g_i^T` the empirical Fisher matrix of N retained records (l the cross-entropy of
    one record). Needs both: one pass over the forget records, N retained ones.
    Source: Izzo et al. (2021) and Koh & Liang (2017) for the step, Singh & Alistarh (2020, "WoodFisher", equation 3)
    for the inverse, Jia et al. (2023) for `alpha` and N = 1000.

    `inverse_fisher_product` applies the inverse exactly. The recursion in the code of Jia et al. keeps one vector of
    WoodFisher's N and so applies something else, with damping 1; they also subtract the retained records' gradient,
    which vanishes at a minimum. The step is first order and depends on how well the original model fits the records to
    forget: where it fits them closely g is tiny, and where it does not a step of 1 may destroy the model. A smaller
    `damping` wants a smaller `alpha`. Batch-norm statistics stay as they are.

    Args:
        alpha: Length of the step, 0 or more; 1 is the influence estimate, published: 0.1 to 20.
        records: N, at least 1; fewer are used where there are not as many retained records.
        damping: Multiple of the identity, above 0: below it, directions count as flat.
        memory_gib: Most memory in GiB that the N gradients may take; a run that needs more is refused.
        epochs: 0; the method only edits.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies `alpha`.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget", "cache"})
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "alpha": Span(1e-3, 20.0, log=True),
        "damping": Span(1e-4, 1.0, log=True),
    }

    def __init__(
        self,
        alpha: float = 1.0,
        records: int = 1000,
        damping: float = 1.0,
        memory_gib: float = 8.0,
        epochs: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, **kwargs)
        at_least("alpha", alpha, 0, self.name)
        at_least("records", records, 1, self.name)
        for setting, value in (("damping", damping), ("memory_gib", memory_gib)):
            if not 0 < value < float("inf"):
                raise InputError(f"{self.name}.{setting} is {value}; set it to a number above 0.")
        self.alpha = alpha
        self.records = records
        self.damping = damping
        self.memory_gib = memory_gib

    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Takes the step.

        Args:
            model: The original model, changed in place.
            retain_loader: One pass over the retained records.
            forget_loader: One pass over the records to forget.

        Raises:
            InputError: The gradients of `records` records do not fit into `memory_gib`.
        """
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        retained = sum(len(labels) for _, labels in retain_loader)
        records = min(self.records, retained)
        numbers = sum(weight.numel() * weight.element_size() for weight in trained_weights(model).values())
        needed = records * numbers / 2**30
        if needed > self.memory_gib:
            raise InputError(
                f"{self.name}.records is {records}, whose gradients take {needed:.1f} GiB of {type(model).__name__}; "
                f"lower it to {int(self.memory_gib * 2**30 / numbers)} or raise memory_gib."
            )
        gradient = parameters[0].new_zeros(sum(parameter.numel() for parameter in parameters))
        forgotten = 0
        with evaluating(model):
            for inputs, labels in forget_loader:
                loss = functional.cross_entropy(model(inputs), labels, reduction="sum")
                gradient += torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
                forgotten += len(labels)
        gradient /= max(1, forgotten + retained)
        rows = record_gradients(model, retain_loader, records)
        step = self.strength * self.alpha * inverse_fisher_product(rows, gradient, self.damping)
        with torch.no_grad():
            for parameter, part in zip(parameters, torch.split(step, [p.numel() for p in parameters]), strict=True):
                parameter.add_(part.view_as(parameter))


def inverse_fisher_product(gradients: Tensor, vector: Tensor, damping: float) -> Tensor:
    """The product of the inverse of a damped empirical Fisher matrix and a vector, without forming the matrix.

    `(damping I + G^T G / N)^-1 v = (v - G^T (N damping I + G G^T)^-1 G v) / damping` by the Woodbury identity.
    WoodFisher's recursion applies the same identity one record at a time; the result is the same, and taking all N at
    once costs one N x N system.

    Args:
        gradients: G, one gradient per row, `[N, P]`; N may be 0.
        vector: v, `[P]`.
        damping: Above 0.

    Returns:
        `[P]`.
    """
    gram = (gradients @ gradients.T).cpu().double()  # in double on the CPU: not every accelerator has it
    gram.diagonal().add_(len(gradients) * damping)
    weights = torch.linalg.solve(gram, (gradients @ vector).cpu().double()).to(gradients)
    product: Tensor = (vector - gradients.T @ weights) / damping
    return product
