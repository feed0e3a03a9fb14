"""Fine-tuning with an L1 penalty: a sparser model has less room for what it should forget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.unlearning.base import Batch, UnlearningMethod, at_least
from retrace_pl.unlearning.search_space import Choice, Span


class L1Sparse(UnlearningMethod):
    """Fine-tunes on the retained records under an L1 penalty that fades over the run.

    Rule: descend `L(D_r) + gamma_t ||theta||_1` with `gamma_t = strength gamma (1 - epoch / epochs)`, L the mean
    cross-entropy and theta all trained parameters, batch-norm weights and biases included. Needs the retained records.
    Source: Jia et al. (2023), "Model sparsity can simplify machine unlearning", equation 3 and its decaying schedule.

    The penalty is what forgets: as in plain fine-tuning nothing names the forget records. It pulls every weight towards
    0 by the learning rate times gamma_t in each step of SGD, so its effect grows with both and with the number of
    steps. Under Adam it is the sign of the penalty that counts rather than its size.

    Args:
        epochs: Passes over the retained records; the penalty fades over them.
        lr: Learning rate.
        gamma: Weight of the penalty in the first epoch, 0 or more; published: 5e-4 (5e-5 to 1e-3).
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies `gamma`.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain"})
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(2e-3, 5e-2, log=True),
        "epochs": Span(10, 20),
        "gamma": Span(5e-4, 5e-2, log=True),
    }

    def __init__(self, epochs: int = 10, lr: float = 1e-2, gamma: float = 5e-4, **kwargs: Any) -> None:
        super().__init__(epochs=epochs, lr=lr, **kwargs)
        at_least("gamma", gamma, 0, self.name)
        self.gamma = gamma

    def penalty_weight(self, epoch: int) -> float:
        """gamma_t of an epoch, counted from 0; 0 from epoch `epochs` on.

        Raises:
            InputError: `epochs` is 0, so that there is nothing over which the penalty could fade.
        """
        if self.epochs == 0:
            raise InputError(f"{self.name}.epochs is 0; set it to the number of epochs that the run has.")
        return self.strength * self.gamma * max(0.0, 1 - epoch / self.epochs)

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """Descends the penalised loss; see `UnlearningMethod.unlearn_step`."""
        inputs, labels = retain_batch
        retain_loss = functional.cross_entropy(model(inputs), labels)
        norm = torch.stack([p.abs().sum() for p in model.parameters() if p.requires_grad]).sum()
        gamma = self.penalty_weight(epoch)
        loss = retain_loss + gamma * norm
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return {
            "loss": loss.detach(),
            "retain_loss": retain_loss.detach(),
            "l1_norm": norm.detach(),
            "penalty_weight": gamma,
        }
