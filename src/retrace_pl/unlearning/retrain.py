"""Retraining from scratch: the reference that every other method approximates."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from retrace_pl.unlearning.reinitialise import reinitialise
from retrace_pl.unlearning.retain_finetune import RetainFineTune


class Retrain(RetainFineTune):
    """Trains a fresh model on the retained records alone: exact unlearning, and the reference for all others.

    Rule: `theta = argmin L(D_r)` from a fresh initialisation, L the mean cross-entropy. Needs the retained records.
    Source: the definition of exact unlearning (Bourtoule et al., 2021, with one shard).

    An audit sees `from_scratch` and trains a new model of the same class with the pretraining recipe; the settings
    here are then not used. A driver that knows only `prepare` and `unlearn_step` gets the same thing with the
    settings below: `prepare` calls `reset_parameters` of every layer, then of the modules around them.

    Args:
        epochs: Passes over the retained records.
        lr: Learning rate.
        seed: Seed of the fresh weights.
        kwargs: The other settings of `UnlearningMethod`; `strength` has no effect.

    Raises:
        InputError: A setting is out of range.
    """

    from_scratch: ClassVar[bool] = True
    strength_scales_lr: ClassVar[bool] = False

    def __init__(self, epochs: int = 20, lr: float = 0.05, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(epochs=epochs, lr=lr, **kwargs)
        self.seed = seed

    def prepare(self, model: nn.Module) -> None:
        """Re-initialises every layer.

        Args:
            model: The original model.

        Raises:
            InputError: A module holds parameters of its own and has no `reset_parameters`.
        """
        reinitialise(model, self.seed, self.name)
