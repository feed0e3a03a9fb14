"""Training anew with nothing deleted: the null pair in the place of an unlearning method."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from retrace_pl.unlearning.base import Batch
from retrace_pl.unlearning.retrain import Retrain


class TrainAgain(Retrain):
    """Trains a fresh model on all records, the deleted ones included, so that two models differ by chance alone.

    Rule: `theta = argmin L(D)` from another fresh initialisation, L the mean cross-entropy. Needs both streams. It
    forgets nothing and is no unlearning method: an audit that "unlearns" with it must end without evidence of a leak,
    which is how the verdict itself is tested. It therefore is not part of the zoo; name it by its dotted path.

    An audit sees `from_scratch` and `from_scratch_split` and trains a new model with the pretraining recipe. A driver
    that knows only `prepare` and `unlearn_step` gets steps on retain and forget batches together, where the shorter
    stream is cycled and its records count more often.

    Args:
        epochs: Passes over the longer stream.
        lr: Learning rate.
        seed: Seed of the fresh weights.
        kwargs: The other settings of `UnlearningMethod`; `strength` has no effect.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget"})
    from_scratch_split: ClassVar[Literal["retain", "train"]] = "train"

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """Descends L(D); see `UnlearningMethod.unlearn_step`."""
        inputs, labels = (torch.cat(parts) for parts in zip(retain_batch, forget_batch, strict=True))
        loss = functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return {"loss": loss.detach()}
