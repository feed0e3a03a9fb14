"""What the Lightning tasks share: optimisers from settings, an epoch axis for every curve, seeded epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau


class BaseTask(LightningModule):
    """Base of the tasks: one optimiser and scheduler from settings, and curves over epochs.

    Curves have the epoch as their axis, because manual optimisation of several networks counts several global steps
    per batch. At the start of each epoch torch's global generator, which dropout draws from, is seeded with
    (seed, epoch, rank): a resumed training draws what an uninterrupted one draws.

    Subclasses save plain hyper-parameters only, so that checkpoints load with `torch.load(weights_only=True)`.

    Args:
        optimizer: Called with the parameters, returns the optimiser.
        scheduler: Called with the optimiser, returns the learning-rate scheduler, which steps once an epoch.
        seed: Seed of all randomness in training.
        monitor: Logged value that a `ReduceLROnPlateau` scheduler follows.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable | None = None,
        seed: int = 0,
        monitor: str = "val/loss",
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.seed = seed
        self.monitor = monitor

    def trained_parameters(self) -> Iterable[torch.nn.Parameter]:
        """Return the parameters that the optimiser gets: all that require gradients."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def configure_optimizers(self) -> Any:
        """Return the optimiser, with its scheduler if there is one, as Lightning expects them."""
        optimizer = self.optimizer(self.trained_parameters())
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        settings: dict[str, Any] = {"scheduler": scheduler, "interval": "epoch"}
        if isinstance(scheduler, ReduceLROnPlateau | torch.optim.lr_scheduler.ReduceLROnPlateau):
            settings["monitor"] = self.monitor
        return {"optimizer": optimizer, "lr_scheduler": settings}

    def on_train_epoch_start(self) -> None:
        """Seed torch's global generator for this epoch."""
        torch.manual_seed(epoch_seed(self.seed, self.current_epoch, self.global_rank))

    def on_train_epoch_end(self) -> None:
        """Set the axis of the training curves to the epoch."""
        self._log_axis()

    def on_validation_epoch_end(self) -> None:
        """Set the axis of the validation curves to the epoch."""
        self._log_axis()

    def _log_axis(self) -> None:
        if not self.trainer.sanity_checking:
            # Lightning takes a value of this name as the loggers' step, and warns of one that processes do not compare.
            self.log("step", float(self.current_epoch), sync_dist=True)


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Derive a seed in [0, 2**32) from (seed, epoch, rank); different triples give unrelated seeds."""
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])


def seeded(build: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    """Build a module with parameters drawn from `seed`; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
