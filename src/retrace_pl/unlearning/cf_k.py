"""Catastrophic forgetting in the last k blocks: fine-tuning of the end of the model alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from retrace_pl.errors import InputError, RunError
from retrace_pl.unlearning.base import Batch, Batches, at_least
from retrace_pl.unlearning.blocks import find_blocks, modules_of, training_only
from retrace_pl.unlearning.retain_finetune import RetainFineTune
from retrace_pl.unlearning.search_space import Choice, Span


class CFk(RetainFineTune):
    """Fine-tunes the last k blocks on the retained records; the rest of the model is frozen.

    Rule: descend `L(D_r)` over the parameters of the last k blocks, from the original weights, L the mean
    cross-entropy. Needs the retained records.
    Source: Goel et al. (2022), "Towards adversarial evaluations for inexact machine unlearning" (CF-k).

    A block is a layer with a weight matrix or kernel, together with the normalisation after it, or a residual block
    as a whole (`find_blocks`). All other parameters and buffers stay as they are to the last bit, whatever the weight
    decay and momentum: the frozen part is in eval mode, so that its statistics do not follow the data and its dropout
    is off. What the features of that part know of the deleted records stays in the model. As in all fine-tuning nothing
    names the forget records: a high learning rate or weight decay is what forgets.

    Args:
        epochs: Passes over the retained records.
        lr: Learning rate, multiplied by `strength`.
        k: How many blocks learn, at least 1; 1 is the classifier's last layer alone, 1 to 3 are usual.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the learning rate.

    Raises:
        InputError: A setting is out of range; on `edit` also if the model has fewer blocks.
    """

    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "k": Span(1, 3),
        "lr": Span(1e-2, 2.0, log=True),
        "epochs": Span(5, 20),
        "weight_decay": Span(1e-5, 2e-2, log=True),
    }

    def __init__(self, epochs: int = 10, lr: float = 1e-2, k: int = 2, **kwargs: Any) -> None:
        super().__init__(epochs=epochs, lr=lr, **kwargs)
        at_least("k", k, 1, self.name)
        self.k = k
        self._learning: list[str] = []

    def prepare(self, model: nn.Module) -> None:
        """Forgets the blocks of an earlier run."""
        self._learning = []

    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Finds the last k blocks by following one retained record through the model.

        Args:
            model: The original model.
            retain_loader: One pass over the retained records, of which one is used.
            forget_loader: Not read.

        Raises:
            InputError: There is no retained record, or the model has fewer blocks than k.
        """
        inputs = next((inputs for inputs, _ in retain_loader), None)
        if inputs is None:
            raise InputError(f"{self.name} needs retained records and there are none; delete less.")
        blocks = find_blocks(model, inputs[:1])
        if self.k > len(blocks):
            raise InputError(f"{self.name}.k is {self.k}; the model has {len(blocks)} blocks, set it to that or less.")
        self._learning = [name for block in blocks[-self.k :] for name in block]

    def set_mode(self, model: nn.Module) -> None:
        """Puts the last k blocks in train mode and every module outside of them in eval mode.

        Args:
            model: The model; `batch_norm="freeze"` keeps the statistics of the last k blocks too.
        """
        super().set_mode(model)
        inside = set(modules_of(model, self._blocks()))
        for module in model.modules():
            if inside.isdisjoint(module.modules()):
                module.eval()

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """Descends L(D_r) over the last k blocks; see `UnlearningMethod.unlearn_step`."""
        parameters = [p for name in self._blocks() for p in model.get_submodule(name).parameters()]
        with training_only(parameters, model):
            return super().unlearn_step(model, retain_batch, forget_batch, optimizer, step, epoch)

    def state_dict(self) -> dict[str, Any]:
        """The names of the modules that learn."""
        return {"learning": list(self._learning)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the names back."""
        self._learning = [str(name) for name in state["learning"]]

    def _blocks(self) -> list[str]:
        if not self._learning:
            raise RunError(f"{self.name} does not know its blocks; call edit(model, retain, forget) before the steps.")
        return self._learning
