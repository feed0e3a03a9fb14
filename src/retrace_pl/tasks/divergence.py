"""Ends a training that has left the finite numbers, before it can overwrite its last good checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from retrace_pl.errors import DivergenceError

__all__ = ["DivergenceGuard"]


class DivergenceGuard(Callback):
    """Watches loss, gradients and weights, and stops when one of them is NaN or infinite.

    The gradients' norm is taken before they are clipped and before every optimiser's step, in automatic and in manual
    optimisation; a norm that overflows counts as infinite. With loss scaling (16-mixed) gradients are left to the
    scaler, which skips steps whose gradients overflow. The weights are looked at after every epoch, before
    `ModelCheckpoint` saves them.

    Args:
        every: Batches between two looks at the numbers on an accelerator, where each look waits for the device; on a
            CPU it is every batch. All processes of a training look at the same batches.
    """

    def __init__(self, every: int = 32) -> None:
        self.every = every
        self._seen: list[tuple[str, int, Tensor]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an epoch that was interrupted left."""
        self._seen = []

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note the norm of the optimiser's gradients."""
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
        gradients = [_here(parameter.grad) for parameter in parameters if parameter.grad is not None]
        if gradients:
            norm = torch.nn.utils.get_total_norm(gradients)
            self._seen.append(("the norm of the gradients", self._batch(trainer), norm))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss, and look at what was noted when it is due.

        Raises:
            DivergenceError: Something is not finite.
        """
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self._seen.append(("the loss", batch_idx, loss.detach()))
        if pl_module.device.type == "cpu" or trainer.is_last_batch or (batch_idx + 1) % self.every == 0:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the weights.

        Raises:
            DivergenceError: One is not finite.
        """
        broken = not all(bool(torch.isfinite(_here(weights)).all()) for weights in pl_module.parameters())
        if _any_process(trainer, broken):
            raise self._error(trainer, pl_module, "weights are NaN or infinite", self._batch(trainer))

    def _look(self, trainer: Trainer, task: LightningModule) -> None:
        seen, self._seen = self._seen, []
        # A NaN in the loss makes gradients NaN, and those were noted first: the loss of the same batch is the cause.
        seen.sort(key=lambda entry: (entry[1], entry[0] != "the loss"))
        broken = [(what, batch, number) for what, batch, value in seen if not math.isfinite(number := float(value))]
        if _any_process(trainer, bool(broken)):
            what, batch, number = (
                broken[0] if broken else ("a number on another device", self._batch(trainer), math.nan)
            )
            raise self._error(trainer, task, f"{what} is {number}", batch)

    @staticmethod
    def _batch(trainer: Trainer) -> int:
        return max(0, trainer.fit_loop.batch_idx)

    @staticmethod
    def _error(trainer: Trainer, task: LightningModule, what: str, batch: int) -> DivergenceError:
        clip = " or set trainer.gradient_clip_val" if task.automatic_optimization else ""
        place = f"epoch {trainer.current_epoch + 1}, step {batch + 1}"
        return DivergenceError(f"diverged in {place}: {what}; lower its learning rate{clip}")


def _here(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: all of it, unless FSDP has spread it over several."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # importing DTensor takes a second
    return local.detach()


def _any_process(trainer: Trainer, broken: bool) -> bool:
    return bool(trainer.strategy.reduce_boolean_decision(broken, all=False))
