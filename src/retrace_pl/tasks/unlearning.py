"""The Lightning module that drives any unlearning method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from retrace_pl.errors import DivergenceError, InputError, RunError
from retrace_pl.unlearning.adapt import AdaptedMethod, as_method
from retrace_pl.unlearning.base import DATA, Batch, Batches, UnlearningMethod

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true")
"""Those without loss scaling."""


class UnlearningTask(LightningModule):
    """Runs an unlearning method on a classifier, with retain and forget batches in step.

    Fit it on `AuditDataModule.unlearning_view()`: training batches are `{"retain": (x, y), "forget": (x, y)}`
    (a stream that the method does not need may be missing), and there are two validation loaders: test images of the
    retained classes, then what should be forgotten. It logs `unlearn/loss` and whatever else the method returns at
    every step, and `unlearn/retain_acc` and `unlearn/forget_acc` (in [0, 1]) after every epoch. Give the trainer the
    method's `epochs` as `max_epochs`; the method's own count and its `{"stop": True}` end the run before that, and a
    trainer that ends earlier leaves a run to be resumed. A one-shot method (0 epochs) edits the model and gets one
    validation.

    Precision: 32-true, 64-true, bf16-mixed and bf16-true. Loss scaling (16-mixed) is refused: the contract lets a
    method clip gradients and call `loss.backward()` itself. Several devices: only for methods that derive from
    `UnlearningMethod`, have no `edit` and call `self.backward(loss)`, which goes through `manual_backward`; plain user
    classes and one-shot methods are refused.

    Failures: a loss or weights that are not finite end the run with a DivergenceError, and `model` then holds the last
    weights at which the loss was finite.

    Checkpoints hold weights, optimiser, plain numbers and the method's `state_dict`, so they load with
    `torch.load(weights_only=True)`, and a run resumed with `fit(ckpt_path=...)` at an epoch boundary gives the weights
    of an uninterrupted one. Construct the task from the original model in both cases: that is what methods prepare
    themselves from. Torch's global generator, which dropout and many published methods draw from, is seeded anew before
    every step.

    Args:
        model: The original classifier, changed in place; returns logits `[n, num_classes]`.
        method: An `UnlearningMethod`, or any object with an `unlearn_step` (see `retrace_pl.unlearning.as_method`).
        num_classes: Number of classes.
        seed: Seeds torch's global generator, together with the number of the step, before every step.

    Raises:
        InputError: The object is no unlearning method, or the trainer's settings do not suit it.
    """

    def __init__(self, model: nn.Module, method: Any, num_classes: int, seed: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters({"num_classes": num_classes, "seed": seed})
        self.automatic_optimization = False
        self.model = model
        self.method = as_method(method)
        self.seed = seed
        self.retain_acc = MulticlassAccuracy(num_classes, average="micro")
        self.forget_acc = MulticlassAccuracy(num_classes, average="micro")
        self.steps_done = 0
        self.stopped = False
        self._original: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}
        self._good: dict[str, Tensor] = {}
        self._saved_method: Mapping[str, Any] | None = None

    @property
    def shares_devices(self) -> bool:
        """Whether several devices can share the method's work."""
        edits = type(self.method).edit is not UnlearningMethod.edit
        return not edits and not isinstance(self.method, AdaptedMethod)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `[n, num_classes]` of inputs `[n, ...]`."""
        logits: Tensor = self.model(inputs)
        return logits

    def configure_optimizers(self) -> Any:
        """The method's optimiser over all parameters that require gradients, with its scheduler if there is one."""
        optimizer = self.method.configure_optimizer(p for p in self.model.parameters() if p.requires_grad)
        if self.method.scheduler is None:
            return optimizer
        return [optimizer], [self.method.scheduler(optimizer)]

    def setup(self, stage: str) -> None:
        """Checks the trainer's settings and keeps the original weights, before a checkpoint replaces them."""
        if stage != "fit":
            return
        name, trainer = self.method.name, self.trainer
        if trainer.max_epochs == 0 and self.method.epochs == 0:
            trainer.fit_loop.max_epochs = 1  # one epoch without a step, for the edit and its validation
        elif trainer.max_epochs == 0:
            raise InputError(f"trainer.max_epochs is 0, so {name} would not run; set it to {self.method.epochs}.")
        if str(trainer.precision) not in PRECISIONS:
            raise InputError(
                f"trainer.precision is {trainer.precision}, which scales the loss behind {name}'s back; "
                f"use one of {', '.join(PRECISIONS)}."
            )
        if trainer.world_size > 1 and not self.shares_devices:
            raise InputError(f"{name} cannot share its work between devices; set trainer.devices to 1.")
        self._original = _clone(self.model)

    def on_fit_start(self) -> None:
        """Puts everything in train mode, which Lightning expects; the method decides before the first step."""
        self.train()

    def on_train_start(self) -> None:
        """Prepares the method from the original weights, then edits the model or resumes."""
        self.model.eval()
        torch.manual_seed(self.seed)
        self.method.bind_backward(self.manual_backward)
        state = self._saved_method
        self._good = self._original
        if state is None:
            self.steps_done, self.stopped = 0, False
            self.method.prepare(self.model)
            self.method.edit(self.model, self._loader("retain"), self._loader("forget"))
            self._require_finite_weights("edit")
        else:
            current = _clone(self.model)
            self.model.load_state_dict(self._original)
            self.method.prepare(self.model)
            self.model.load_state_dict(current)
            self.method.load_state_dict(state)
            self._saved_method = None
        self._original = {}
        self._good = _clone(self.model)
        self._before = _clone(self.model)
        if self.stopped:
            self.trainer.should_stop = True

    def on_train_epoch_start(self) -> None:
        """Puts the model in the method's mode."""
        self.method.set_mode(self.model)

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> None:
        """One `unlearn_step`, watched: a loss that is not finite restores the last good weights."""
        if self.method.epochs <= self.current_epoch:
            self._stop()
            return
        missing = sorted(self.method.needs & DATA - {key for key, value in batch.items() if value is not None})
        if missing:
            raise InputError(
                f"{self.method.name} needs {' and '.join(missing)} batches and the data has none; "
                "fit on AuditDataModule.unlearning_view()."
            )
        self._before = _copy(self.model, self._before)
        torch.manual_seed(self.seed + 1_000_003 * self.steps_done)
        result = self.method.unlearn_step(
            self.model,
            cast(Batch, batch.get("retain")),  # None only where the method does not need it
            cast(Batch, batch.get("forget")),
            cast(torch.optim.Optimizer, self.optimizers()),
            self.steps_done,
            self.current_epoch,
        )
        loss = self._checked_loss(result)
        self._before, self._good = self._good, self._before
        self.steps_done += 1
        self.log("unlearn/loss", loss, prog_bar=True, batch_size=1)
        extra = {k: v for k, v in result.items() if k not in ("loss", "stop") and is_number(v)}
        self.log_dict({f"unlearn/{key}": value for key, value in extra.items()}, batch_size=1)
        last_epoch = self.current_epoch + 1 == self.method.epochs
        if self._any_rank(bool(result.get("stop", False))) or (last_epoch and self.trainer.is_last_batch):
            self._stop()

    def on_train_epoch_end(self) -> None:
        """Refuses weights that the last step of the epoch broke, and steps the scheduler."""
        if self.method.scheduler is not None:
            cast(torch.optim.lr_scheduler.LRScheduler, self.lr_schedulers()).step()
        self._require_finite_weights(f"step {self.steps_done - 1}")

    def on_train_end(self) -> None:
        """Lets the copies of the weights go."""
        self._before, self._good = {}, {}
        self.method.bind_backward(None)

    def on_validation_start(self) -> None:
        """Refuses broken weights before a checkpoint callback can save them."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._require_finite_weights(f"step {self.steps_done - 1}")

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracy on the retained classes (loader 0) and on what should be forgotten (loader 1)."""
        inputs, labels = batch
        name, metric = (
            ("unlearn/retain_acc", self.retain_acc) if dataloader_idx == 0 else ("unlearn/forget_acc", self.forget_acc)
        )
        metric.update(self(inputs), labels)
        self.log(name, metric, on_step=False, on_epoch=True, prog_bar=True, add_dataloader_idx=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the method must remember."""
        checkpoint["unlearning"] = {
            "method": self.method.name,
            "steps_done": self.steps_done,
            "stopped": self.stopped,
            "state": self.method.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it back; the method's own state waits until it is prepared."""
        saved = checkpoint.get("unlearning")
        if saved is None:
            raise InputError("The checkpoint is not one of an unlearning run; give one that UnlearningTask saved.")
        if saved["method"] != self.method.name:
            raise InputError(f"The checkpoint is one of {saved['method']}, not of {self.method.name}; start afresh.")
        self.steps_done = saved["steps_done"]
        self.stopped = saved["stopped"]
        self._saved_method = saved["state"]

    def _stop(self) -> None:
        if not self.stopped:
            self.method.finish(self.model)
        self.stopped = True
        self.trainer.should_stop = True

    def _any_rank(self, flag: bool) -> bool:
        return bool(self.trainer.strategy.reduce_boolean_decision(flag, all=False))

    def _loader(self, stream: str) -> Batches:
        combined = self.trainer.train_dataloader
        loaders = combined.iterables if isinstance(combined, CombinedLoader) else combined
        if not isinstance(loaders, Mapping):
            raise InputError(
                "The training data must be {'retain': loader, 'forget': loader}; "
                "fit on AuditDataModule.unlearning_view()."
            )
        return _OnDevice(loaders.get(stream, ()), self)

    def _checked_loss(self, result: Any) -> float:
        if not isinstance(result, Mapping) or "loss" not in result:
            raise RunError(f'{self.method.name}.unlearn_step must return a dictionary with "loss"; add it.')
        if not is_number(result["loss"]):
            kind = type(result["loss"]).__name__
            raise RunError(f'{self.method.name}.unlearn_step returned a "loss" ({kind}) that is no single number.')
        loss = float(torch.as_tensor(result["loss"]).detach())
        if self._any_rank(not math.isfinite(loss)):
            self._fail(f"the loss is {loss}", f"step {self.steps_done}")
        return loss

    def _require_finite_weights(self, where: str) -> None:
        if not all(bool(torch.isfinite(value).all()) for value in self.model.state_dict().values()):
            self._fail("weights are not finite", where)

    def _fail(self, what: str, where: str) -> None:
        if self._good:
            self.model.load_state_dict(self._good)
        raise DivergenceError(
            f"{self.method.name} diverged at {where}: {what}; lower unlearning lr or strength (the model is back at "
            "its last good weights)."
        )


class _OnDevice:
    """One pass over a stream's records, however often its loader repeats them, on the task's device."""

    def __init__(self, loader: Batches, task: LightningModule) -> None:
        self.loader = loader
        self.task = task

    def __iter__(self) -> Iterator[Batch]:
        records = len(getattr(self.loader, "dataset", ()))
        seen = 0
        for inputs, labels in self.loader:
            yield inputs.to(self.task.device), labels.to(self.task.device)
            seen += len(labels)
            if seen == records:
                break


def is_number(value: Any) -> bool:
    """Whether it can be logged: a real number, or a real tensor with one element."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, Real)


def _clone(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def _copy(model: nn.Module, into: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's weights, in the given tensors where they fit."""
    state = model.state_dict()
    if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in into.items()}:
        return _clone(model)
    for name, value in state.items():
        into[name].copy_(value)
    return into
