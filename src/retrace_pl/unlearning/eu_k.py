"""Exact unlearning of the last k blocks: the end of the model is trained anew, on what the rest still remembers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from retrace_pl.unlearning.base import Batches
from retrace_pl.unlearning.blocks import modules_of
from retrace_pl.unlearning.cf_k import CFk
from retrace_pl.unlearning.reinitialise import reinitialise
from retrace_pl.unlearning.search_space import Choice, Span


class EUk(CFk):
    """Re-initialises the last k blocks and trains them on the retained records; the rest of the model is frozen.

    Rule: replace the parameters and statistics of the last k blocks by fresh ones, then descend `L(D_r)` over them, L
    the mean cross-entropy. Needs the retained records.
    Source: Goel et al. (2022), "Towards adversarial evaluations for inexact machine unlearning" (EU-k).

    Blocks and what stays frozen are those of `CFk`. "Exact" holds for the last k blocks alone: the frozen ones were
    trained on the deleted records too. With k the number of all blocks this is retraining.

    Args:
        epochs: Passes over the retained records.
        lr: Learning rate, multiplied by `strength`; with `strength=0` the last blocks stay random.
        k: How many blocks start anew, at least 1; 1 to 3 are usual.
        seed: Seed of the fresh weights.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the learning rate.

    Raises:
        InputError: A setting is out of range; on `edit` also if the model has fewer blocks or a module holds
            parameters of its own and has no `reset_parameters`.
    """

    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "k": Span(1, 3),
        "lr": Span(1e-2, 1.0, log=True),
        "epochs": Span(5, 20),
    }

    def __init__(self, epochs: int = 10, lr: float = 5e-2, k: int = 2, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(epochs=epochs, lr=lr, k=k, **kwargs)
        self.seed = seed

    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Finds the last k blocks and gives them fresh parameters and statistics.

        Args:
            model: The original model, changed in place.
            retain_loader: One pass over the retained records, of which one is used.
            forget_loader: Not read.
        """
        super().edit(model, retain_loader, forget_loader)
        fresh = copy.deepcopy(model)
        reinitialise(fresh, self.seed, self.name)  # as a whole, because a model may have a scheme of its own
        for old, new in zip(modules_of(model, self._blocks()), modules_of(fresh, self._blocks()), strict=True):
            old.load_state_dict(new.state_dict())
