"""SCRUB that goes back to the epoch which forgot the right amount."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from retrace_pl.unlearning.base import Batch, at_least, in_unit_interval
from retrace_pl.unlearning.scrub import SCRUB
from retrace_pl.unlearning.search_space import Choice, Span


class SCRUBRewind(SCRUB):
    """SCRUB, then back to the epoch whose accuracy on the records to forget is closest to a reference (SCRUB+R).

    Rule: that of `SCRUB`; at the end theta becomes that of the epoch e with the smallest
    `|accuracy_e(D_f) - target_forget_accuracy|`, the latest of equals (it had the most min steps to repair what stays).
    Needs the retained and the forget records.
    Source: Kurmanji et al. (2023), the rewinding of SCRUB+R, which guards against forgetting so thoroughly that the
    errors themselves give the records away.

    The authors take the reference from held-out records of the same kind as those to forget. Neither stream holds such
    records, so it is a setting: 0 for a deleted class, which a model that never saw it cannot name; for single records
    the original model's accuracy on test records.

    An epoch's accuracy is taken on its latest `window` forget batches, in eval mode, each right after the step it was
    used in; so it costs one forward pass per step. Only the best weights so far are kept, in checkpoints as well.

    Args:
        target_forget_accuracy: Accuracy on the records to forget to come close to, in [0, 1].
        window: Number of latest forget batches that tell an epoch's accuracy.
        epochs: Passes over the longer of the two streams, max epochs included.
        lr: Learning rate.
        kwargs: The other settings of `SCRUB` and `UnlearningMethod`; `strength` is that of `SCRUB`.

    Raises:
        InputError: A setting is out of range.
    """

    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(1e-3, 2e-2, log=True),
        "epochs": Span(5, 12),
        "msteps": Span(1, 5),
        "max_every": Span(1, 32, log=True),
        "strength": Span(0.05, 1.0, log=True),
    }

    def __init__(
        self,
        target_forget_accuracy: float = 0.0,
        window: int = 2,
        epochs: int = 3,
        lr: float = 5e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, **kwargs)
        in_unit_interval("target_forget_accuracy", target_forget_accuracy, self.name)
        at_least("window", window, 1, self.name)
        self.target_forget_accuracy = target_forget_accuracy
        self.window = window
        self._forget_run()

    def _forget_run(self) -> None:
        self._epoch = 0
        self._recent: deque[tuple[int, int]] = deque(maxlen=self.window)
        self._best: dict[str, Tensor] = {}
        self._best_distance = float("inf")
        self._best_epoch = -1

    def prepare(self, model: nn.Module) -> None:
        """Keeps the original model as the teacher, and forgets the epochs of an earlier run."""
        super().prepare(model)
        self._forget_run()

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """SCRUB's steps, then the accuracy on the forget batch as "forget_batch_acc"."""
        if epoch != self._epoch:  # these are still the weights at the end of the epoch before
            self._end_epoch(model)
            self._epoch = epoch
        result = super().unlearn_step(model, retain_batch, forget_batch, optimizer, step, epoch)
        self._recent.append((_correct(model, forget_batch), len(forget_batch[1])))
        return result | {"forget_batch_acc": self._recent[-1][0] / self._recent[-1][1]}

    def finish(self, model: nn.Module) -> None:
        """Takes the weights of the best epoch.

        Args:
            model: The model that has unlearnt.
        """
        self._end_epoch(model)
        if self._best:
            model.load_state_dict(self._best)

    def _end_epoch(self, model: nn.Module) -> None:
        if not self._recent:
            return
        accuracy = sum(correct for correct, _ in self._recent) / sum(count for _, count in self._recent)
        self._recent.clear()
        distance = abs(accuracy - self.target_forget_accuracy)
        if distance <= self._best_distance:
            self._best_distance, self._best_epoch = distance, self._epoch
            self._best = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """The best weights so far, and the counts of the latest forget batches."""
        return {
            "epoch": self._epoch,
            "recent": [list(pair) for pair in self._recent],
            "best": self._best,
            "best_distance": self._best_distance,
            "best_epoch": self._best_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes them back."""
        self._epoch = int(state["epoch"])
        self._recent.clear()
        self._recent.extend((int(correct), int(count)) for correct, count in state["recent"])
        self._best = dict(state["best"])
        self._best_distance = float(state["best_distance"])
        self._best_epoch = int(state["best_epoch"])


@torch.no_grad()
def _correct(model: nn.Module, batch: Batch) -> int:
    """How many records of the batch the model gets right in eval mode; its modes are left as they were."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    right = int((model(batch[0]).argmax(1) == batch[1]).sum())
    for module, training in modes.items():
        module.training = training
    return right
