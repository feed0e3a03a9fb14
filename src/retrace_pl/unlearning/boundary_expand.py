"""Boundary expand: the records to forget move to a class of their own, which is then dropped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from retrace_pl.errors import InputError, RunError
from retrace_pl.unlearning.base import Batch, BatchNorm, UnlearningMethod
from retrace_pl.unlearning.search_space import Choice, Span


class BoundaryExpand(UnlearningMethod):
    """Trains the records to forget on an extra class and drops that class at the end (Boundary Expand).

    Rule: with h the input of the last linear layer, `z = (f(x), w.h + b)` has K+1 logits; descend
    `CE(z, K+1)` over D_f, then remove w and b. Needs the forget records alone.
    Source: Chen et al., "Boundary Unlearning" (CVPR 2023), equations for the boundary expansion.

    The model itself keeps its K logits all the time. The extra row belongs to the method, is computed from the
    features that the last `nn.Linear` reads, and is trained by an optimiser of its own with the same settings and the
    learning rate of the model's; it is part of the method's state, so a resumed run goes on with it.

    The loss can also be lowered by the extra logit alone, and then nothing is left of the unlearning once that is
    dropped: a low `loss` says little here, look at `forget_acc`.

    Args:
        epochs: Passes over the records to forget.
        lr: Learning rate, multiplied by `strength`; 1e-5 is published, with SGD.
        batch_size: Records per batch.
        batch_norm: "freeze" by default, because batches of the deleted class alone would take over the statistics.
        seed: Seed of the extra row.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the learning rate.

    Raises:
        InputError: A setting is out of range, or the model's logits are not the output of its last `nn.Linear`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget"})
    strength_scales_lr: ClassVar[bool] = True
    weighs_forget: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(1e-6, 1e-2, log=True),
        "epochs": Span(1, 20),
        "optimizer": Choice(("sgd", "adam")),
        "batch_size": Choice((32, 64)),
    }

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 1e-5,
        batch_size: int = 64,
        batch_norm: BatchNorm = "freeze",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, batch_size=batch_size, batch_norm=batch_norm, **kwargs)
        self.seed = seed
        self._extra: nn.Linear | None = None
        self._optimizer: torch.optim.Optimizer

    def prepare(self, model: nn.Module) -> None:
        """Draws the extra row as a new linear layer would.

        Args:
            model: The original model.

        Raises:
            InputError: It has no linear layer.
        """
        head = self._head(model)
        self._extra = nn.Linear(head.in_features, 1).to(head.weight)
        bound = 1 / math.sqrt(head.in_features)
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for parameter in self._extra.parameters():  # drawn on the CPU, so that the device does not matter
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
        self._optimizer = self.configure_optimizer(self._extra.parameters())

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """Descends the loss of the extra class on the forget batch; see `UnlearningMethod.unlearn_step`."""
        if self._extra is None:
            raise RunError(f"{self.name} has no extra class yet; call prepare(model) before the first step.")
        logits, features = self._logits_and_features(model, forget_batch[0])
        widened = torch.cat((logits, self._extra(features)), dim=1)
        target = torch.full_like(forget_batch[1], logits.shape[1])
        loss = self.forget_mean(functional.cross_entropy(widened, target, reduction="none"), forget_batch)
        optimizer.zero_grad()
        self._optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        self._step_extra(self._extra, optimizer.param_groups[0]["lr"])
        return {"loss": loss.detach()}

    def finish(self, model: nn.Module) -> None:
        """Drops the extra class; the model never held it."""
        self._extra = None

    def state_dict(self) -> dict[str, Any]:
        """The extra row and what its optimiser remembers."""
        if self._extra is None:
            return {}
        return {"extra": dict(self._extra.state_dict()), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes both back; a run that had finished has none."""
        if not state:
            self._extra = None
        elif self._extra is not None:
            self._extra.load_state_dict(state["extra"])
            self._optimizer.load_state_dict(state["optimizer"])

    def _head(self, model: nn.Module) -> nn.Linear:
        layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not layers:
            raise InputError(f"{self.name} widens the last nn.Linear and {type(model).__name__} has none.")
        return layers[-1]

    def _logits_and_features(self, model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """One forward pass: logits `[n, K]` and the features `[n, F]` that the last linear layer read."""
        seen: list[tuple[Tensor, Tensor]] = []
        handle = self._head(model).register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
        try:
            logits: Tensor = model(inputs)
        finally:
            handle.remove()
        if len(seen) != 1 or (seen[0][1] is not logits and not torch.equal(seen[0][1], logits)):
            raise InputError(
                f"{self.name} needs a model whose logits are the output of its last nn.Linear, and those of "
                f"{type(model).__name__} are not; use another method."
            )
        return logits, seen[0][0]

    def _step_extra(self, extra: nn.Linear, lr: float) -> None:
        """One step of the extra row, with gradients averaged over devices as those of the model are."""
        if distributed.is_available() and distributed.is_initialized():
            for parameter in extra.parameters():
                if parameter.grad is not None:
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= distributed.get_world_size()
        for group in self._optimizer.param_groups:
            group["lr"] = lr  # a scheduler may have moved it
        self._optimizer.step()
