"""The contract of an unlearning method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from retrace_pl.errors import InputError
from retrace_pl.unlearning.search_space import Choice, Span

Batch = tuple[Tensor, Tensor]
"""Inputs `[n, ...]` and labels `[n]` (int64), both on the model's device."""

Batches = Iterable[Batch]
"""One pass over a split, batch by batch; may be iterated several times."""

DATA = frozenset({"retain", "forget"})
"""The two streams a method may ask for in `needs`."""

NEEDS = DATA | {"cache"}
"""Everything `needs` may hold: the streams, and "cache" for statistics of the data computed before the first step."""

OptimizerName = Literal["sgd", "adam", "adamw"]
BatchNorm = Literal["update", "freeze"]


class UnlearningMethod:
    """Common settings and default hooks of every unlearning method.

    The life of a method, as `retrace_pl.tasks.UnlearningTask` runs it (any other driver should keep the order):
    `prepare(model)`, `edit(model, retain_loader, forget_loader)`, then for every epoch `set_mode(model)` and one
    `unlearn_step` per pair of batches, and `finish(model)` after the last step. An iterative method overrides
    `unlearn_step`; a one-shot method overrides `edit` and has `epochs=0`; a method may use both (for instance a
    saliency mask first, steps afterwards).

    `unlearn_step(model, retain_batch, forget_batch, optimizer, step, epoch) -> dict` is the contract of MLS-Bench's
    "security-machine-unlearning", so that a file written for it plugs in unchanged (see `as_method`).

    One epoch is one pass over the longer of the streams; the shorter one is cycled. Batch normalisation: with
    `batch_norm="update"` the whole model is in train mode, as in the published implementations, and the running
    statistics follow every forward pass. With `"freeze"` the batch-norm layers stay in eval mode and keep the
    statistics of the original model (their weights and biases still learn); dropout is on in both. "update" is the
    default; a method whose batches hold forget records alone, such as `GradientAscent`, needs "freeze", because the
    statistics of one class would replace those that every later input is normalised with, and a model broken in that
    way looks as if it had forgotten.

    Args:
        epochs: Passes over the data; 0 for methods that only use `edit`.
        lr: Learning rate, above 0.
        batch_size: Examples per batch of each stream.
        optimizer: "sgd", "adam" or "adamw".
        momentum: Momentum of SGD; other optimisers ignore it.
        weight_decay: Weight decay of the optimiser.
        strength: How hard the method pushes towards forgetting, 0 or more; 1 is the published rule, and every method
            says what it multiplies. Sweeping it gives the trade-off between forgetting and utility.
        batch_norm: "update" has batch normalisation learn statistics from the batches it sees, "freeze" keeps those of
            the original model.
        scheduler: Learning-rate scheduler, called with the optimiser; steps once an epoch.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = DATA
    """The streams `unlearn_step` and `edit` read; the batch of any other stream may be None. "cache" says that a pass
    before the first step computes statistics of the data (Fisher information, a saliency mask, weights)."""

    from_scratch: ClassVar[bool] = False
    """True if the method starts from fresh weights and the pretraining recipe instead of the original model."""

    from_scratch_split: ClassVar[Literal["retain", "train"]] = "retain"
    """What a method from scratch is trained on; "train" keeps the deleted records and is a control, see TrainAgain."""

    strength_scales_lr: ClassVar[bool] = False
    """True if `strength` multiplies the learning rate rather than a term of the loss."""

    weighs_forget: ClassVar[bool] = False
    """True if the forget loss goes through `forget_mean`, so that a wrapper such as `Guard` can weigh its records."""

    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(1e-4, 1e-1, log=True),
        "epochs": Span(1, 20),
        "strength": Span(0.1, 10.0, log=True),
    }
    """Settings that `retrace tune` may change, and their ranges."""

    def __init__(
        self,
        epochs: int = 5,
        lr: float = 1e-3,
        batch_size: int = 128,
        optimizer: OptimizerName = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        strength: float = 1.0,
        batch_norm: BatchNorm = "update",
        scheduler: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
    ) -> None:
        name = type(self).__name__
        at_least("epochs", epochs, 0, name)
        at_least("batch_size", batch_size, 1, name)
        at_least("strength", strength, 0, name)
        at_least("momentum", momentum, 0, name)
        at_least("weight_decay", weight_decay, 0, name)
        if not 0 < lr < float("inf"):
            raise InputError(f"{name}.lr is {lr}; set it to a number above 0.")
        one_of("optimizer", optimizer, get_args(OptimizerName), name)
        one_of("batch_norm", batch_norm, get_args(BatchNorm), name)
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.optimizer_name: OptimizerName = optimizer
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.scheduler = scheduler
        self.strength = strength
        self.batch_norm: BatchNorm = batch_norm
        self.forget_weights: Callable[[Batch], Tensor] | None = None
        self._backward: Callable[[Tensor], None] | None = None

    @property
    def name(self) -> str:
        """The name used in messages and reports."""
        return type(self).__name__

    def configure_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Builds the optimiser that `unlearn_step` is given.

        Args:
            parameters: The model's parameters.

        Returns:
            The optimiser that the settings describe.
        """
        lr = self.lr * self.strength if self.strength_scales_lr else self.lr
        return build_optimizer(self.optimizer_name, parameters, lr, self.momentum, self.weight_decay)

    def set_mode(self, model: nn.Module) -> None:
        """Puts the model in train mode; called at the start of every epoch.

        Args:
            model: The model that is unlearning; its batch-norm layers go to eval mode with `batch_norm="freeze"`.
        """
        model.train()
        if self.batch_norm == "freeze":
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def prepare(self, model: nn.Module) -> None:
        """Called once before anything else, with the original weights: frozen teacher copies and the like.

        It runs again, with the original weights, when a run is resumed; so it must depend on nothing but the model
        and explicit seeds.

        Args:
            model: The original model in eval mode, on the device of the run.
        """

    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Called once after `prepare` and before the first step: where one-shot methods change the weights.

        It does not run again when a run is resumed; what it computed and later steps need belongs in `state_dict`.

        Args:
            model: The model to change in place; in eval mode.
            retain_loader: One pass over the retained records, on the model's device.
            forget_loader: One pass over the records to forget, on the model's device.
        """

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """One step, including its own zero_grad, backward and optimiser step; this default does nothing and stops.

        Args:
            model: The model that is unlearning, to be changed in place.
            retain_batch: Inputs and labels of retained records; None if the method does not need them.
            forget_batch: Inputs and labels of records to forget; None if the method does not need them.
            optimizer: What `configure_optimizer` returned.
            step: Steps done so far in all epochs.
            epoch: Epochs done so far.

        Returns:
            At least "loss" (a number or scalar tensor). `"stop": True` ends the run after this step; further numbers
            are logged as `unlearn/<key>`.
        """
        return {"loss": 0.0, "stop": True}

    def finish(self, model: nn.Module) -> None:
        """Called once after the last step: rewinding to an earlier state, dropping an extra logit and the like.

        Args:
            model: The model that has unlearnt, to be changed in place.
        """

    def state_dict(self) -> dict[str, Any]:
        """What must survive an interruption: numbers, strings, lists, dictionaries and tensors only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` returned; called after `prepare`.

        Args:
            state: The saved state.
        """

    def forget_mean(self, losses: Tensor, forget_batch: Batch) -> Tensor:
        """The mean of the forget losses, weighted record by record where a wrapper set `forget_weights`.

        Args:
            losses: One loss per record of the forget batch, `[n]`.
            forget_batch: The batch they come from.

        Returns:
            A scalar; without weights the plain mean.
        """
        if self.forget_weights is None:
            return losses.mean()
        return (self.forget_weights(forget_batch).detach() * losses).mean()

    def bind_backward(self, backward: Callable[[Tensor], None] | None) -> None:
        """Makes `backward` go through the given function, which knows about devices and precision.

        Args:
            backward: For instance `LightningModule.manual_backward`; None restores `loss.backward()`.
        """
        self._backward = backward

    def backward(self, loss: Tensor) -> None:
        """Back-propagates; methods call this rather than `loss.backward()`.

        Args:
            loss: A scalar.
        """
        if self._backward is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self._backward(loss)


def build_optimizer(
    name: OptimizerName, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Builds an optimiser from plain settings.

    Args:
        name: "sgd", "adam" or "adamw".
        parameters: What to optimise.
        lr: Learning rate.
        momentum: Momentum of SGD.
        weight_decay: Weight decay.

    Returns:
        The optimiser.
    """
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(parameters, lr=lr, weight_decay=weight_decay)


def at_least(setting: str, value: float, low: float, owner: str) -> None:
    """Raises InputError unless the value is a finite number not below `low`."""
    if not low <= value < float("inf"):
        raise InputError(f"{owner}.{setting} is {value}; set it to {low} or more.")


def in_unit_interval(setting: str, value: float, owner: str) -> None:
    """Raises InputError unless the value lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise InputError(f"{owner}.{setting} is {value}; set it to a number between 0 and 1.")


def one_of(setting: str, value: str, choices: tuple[str, ...], owner: str) -> None:
    """Raises InputError unless the value is one of the choices."""
    if value not in choices:
        raise InputError(f"{owner}.{setting} is {value!r}; choose one of {', '.join(choices)}.")
