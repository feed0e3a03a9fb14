"""The Lightning module that trains a classifier: the audited model, its retrained twin, the evaluator."""

from __future__ import annotations

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from retrace_pl.models import Classifier
from retrace_pl.tasks.base import BaseTask


class ClassifierTask(BaseTask):
    """Trains a classifier with cross-entropy on `(inputs, labels)` batches.

    Logs `train/loss`, `train/accuracy`, and the same under `val/` and `test/`, with `accuracy_macro` (mean over
    classes) beside them; all are means over an epoch, accuracies in [0, 1].

    Args:
        model: The classifier to train.
        num_classes: Number of classes.
        optimizer: Optimiser class and its settings; called with the parameters.
        scheduler: Learning-rate scheduler stepped once an epoch; called with the optimiser.
        label_smoothing: Smoothing of the training targets, in [0, 1); validation and test losses have none.
        seed: Seed of dropout.
    """

    def __init__(
        self,
        model: Classifier,
        num_classes: int,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(parameters, lr=0.001),
        scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer, scheduler, seed)
        self.save_hyperparameters({"num_classes": num_classes, "label_smoothing": label_smoothing, "seed": seed})
        self.model = model
        self.train_loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.loss = nn.CrossEntropyLoss()
        accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        macro = MulticlassAccuracy(num_classes, average="macro", validate_args=False)
        self.train_metrics = MetricCollection({"accuracy": accuracy}, prefix="train/")
        self.val_metrics = MetricCollection({"accuracy": accuracy.clone(), "accuracy_macro": macro}, prefix="val/")
        self.test_metrics = self.val_metrics.clone(prefix="test/")

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs [n, ...] to logits [n, num_classes]."""
        return torch.as_tensor(self.model(inputs))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        inputs, labels = batch
        logits = self(inputs)
        loss: Tensor = self.train_loss(logits, labels)
        self.train_metrics.update(logits.detach(), labels)
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(labels), sync_dist=True)
        self.log_dict(self.train_metrics, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure loss and accuracies of one validation batch."""
        self._evaluate(batch, self.val_metrics, "val/loss")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure loss and accuracies of one test batch."""
        self._evaluate(batch, self.test_metrics, "test/loss")

    def predict_step(self, batch: tuple[Tensor, Tensor] | Tensor, batch_idx: int) -> Tensor:
        """Return class probabilities [n, num_classes] of a batch, with or without labels."""
        inputs = batch if isinstance(batch, Tensor) else batch[0]
        return torch.softmax(self(inputs), dim=1)

    def _evaluate(self, batch: tuple[Tensor, Tensor], metrics: MetricCollection, tag: str) -> None:
        inputs, labels = batch
        logits = self(inputs)
        metrics.update(logits, labels)
        self.log(tag, self.loss(logits, labels), on_epoch=True, batch_size=len(labels), sync_dist=True)
        self.log_dict(metrics, on_epoch=True, batch_size=len(labels))
