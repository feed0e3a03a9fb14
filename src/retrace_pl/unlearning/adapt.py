"""The adapter that lets any object with an `unlearn_step` fulfil the contract of an unlearning method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.unlearning.base import DATA, NEEDS, Batch, Batches, UnlearningMethod


class AdaptedMethod(UnlearningMethod):
    """Any object with an `unlearn_step` or an `edit`, with everything that it does not say filled in.

    What the object does not say is MLS-Bench's recipe: both streams, 20 epochs, batches of 128, Adam with learning
    rate 1e-3 on all parameters, the model in train mode. Attributes of the same names as the settings of
    `UnlearningMethod`, and its hooks (`configure_optimizer`, `prepare`, `edit`, `finish`, `state_dict`,
    `load_state_dict`), are used where the object has them. An object with only `edit` runs for 0 epochs.

    Args:
        inner: The object.

    Raises:
        InputError: The object has neither method, or an attribute is out of range.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        steps = callable(getattr(inner, "unlearn_step", None))
        if not steps and not callable(getattr(inner, "edit", None)):
            raise InputError(
                f"{type(inner).__name__} is no unlearning method; give it "
                "unlearn_step(model, retain_batch, forget_batch, optimizer, step, epoch) or "
                "edit(model, retain_loader, forget_loader)."
            )
        optimizer = getattr(inner, "optimizer", "adam")
        super().__init__(
            epochs=getattr(inner, "epochs", 20 if steps else 0),
            lr=getattr(inner, "lr", 1e-3),
            batch_size=getattr(inner, "batch_size", 128),
            optimizer=optimizer if isinstance(optimizer, str) else "adam",  # type: ignore[arg-type]
            momentum=getattr(inner, "momentum", 0.9),
            weight_decay=getattr(inner, "weight_decay", 0.0),
            strength=getattr(inner, "strength", 1.0),
            batch_norm=getattr(inner, "batch_norm", "update"),
        )
        self.needs = frozenset(getattr(inner, "needs", DATA))  # type: ignore[misc]
        unknown = sorted(self.needs - NEEDS)
        if unknown:
            raise InputError(f"{self.name}.needs names {', '.join(unknown)}; use 'retain', 'forget' and 'cache'.")
        self.from_scratch = bool(getattr(inner, "from_scratch", False))  # type: ignore[misc]

    @property
    def name(self) -> str:
        """The class name of the wrapped object."""
        return type(self.inner).__name__

    def _hook(self, name: str) -> Callable[..., Any]:
        own = getattr(self.inner, name, None)
        return own if callable(own) else getattr(super(), name)  # type: ignore[no-any-return]

    def configure_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The object's own optimiser, or the one its settings describe."""
        optimizer: torch.optim.Optimizer = self._hook("configure_optimizer")(parameters)
        return optimizer

    def prepare(self, model: nn.Module) -> None:
        """Calls the object's hook, if any."""
        self._hook("prepare")(model)

    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Calls the object's hook, if any."""
        self._hook("edit")(model, retain_loader, forget_loader)

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """Calls the object's step."""
        result: dict[str, Any] = self._hook("unlearn_step")(model, retain_batch, forget_batch, optimizer, step, epoch)
        return result

    def finish(self, model: nn.Module) -> None:
        """Calls the object's hook, if any."""
        self._hook("finish")(model)

    def state_dict(self) -> dict[str, Any]:
        """The object's own state, if it keeps any."""
        state: dict[str, Any] = self._hook("state_dict")()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Calls the object's hook, if any."""
        self._hook("load_state_dict")(state)


def as_method(method: Any) -> UnlearningMethod:
    """Returns the method itself, or any other object behind the adapter that fills in what it does not say.

    Args:
        method: An `UnlearningMethod`, or any object with an `unlearn_step` (or an `edit`).

    Returns:
        A method with every setting and hook of the contract.

    Raises:
        InputError: The object is no unlearning method.
    """
    return method if isinstance(method, UnlearningMethod) else AdaptedMethod(method)
