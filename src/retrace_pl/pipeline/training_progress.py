"""The bar of one training: Lightning's loop, drawn like every other step of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from retrace_pl.report.progress import Bar

__all__ = ["TrainingProgress"]

SHOWN = 2
"""Metrics beside the bar."""


class TrainingProgress(ProgressBar):
    """Shows epochs, metrics (those marked `prog_bar`, where there are any), and the time left of all epochs together.

    Lightning's own bar counts the batches of one epoch, whose time left says nothing about the training's.

    Args:
        name: what is trained.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._bar: Bar | None = None
        self._enabled = True
        self._first = 0
        self._note = ""

    def enable(self) -> None:
        """Lightning's request to draw."""
        self._enabled = True

    def disable(self) -> None:
        """Lightning's request not to draw, made in every process but the first."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the bar."""
        self._first = trainer.current_epoch  # above 0 where an earlier attempt was cut off
        left = (trainer.max_epochs or 0) - self._first
        if self._enabled and trainer.is_global_zero and left > 0:
            self._bar = Bar(self.name, left)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar."""
        batches = trainer.num_training_batches
        part = (batch_idx + 1) / batches if isinstance(batches, int) and batches else 0.0
        self._update(trainer, trainer.current_epoch + part)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the metrics of the epoch."""
        found: Mapping[str, Any] = trainer.progress_bar_metrics or trainer.callback_metrics
        self._note = ", ".join(f"{name} {float(value):.3g}" for name, value in list(found.items())[:SHOWN])
        self._update(trainer, trainer.current_epoch + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the bar down."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Takes the bar down after an error, too."""
        self._close()

    def _update(self, trainer: Trainer, completed: float) -> None:
        if self._bar is not None:
            epoch = min(trainer.current_epoch + 1, trainer.max_epochs or 0)
            self._bar.update(completed - self._first, f"epoch {epoch}/{trainer.max_epochs}", self._note)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
