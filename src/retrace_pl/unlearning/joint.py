"""One forward pass over two batches."""

from __future__ import annotations

from torch import Tensor, nn

from retrace_pl.models import behaviour_of


def joint_logits(model: nn.Module, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Passes two batches of inputs through the model together.

    In train mode both are then normalised with the same batch statistics. Passed one after the other, a batch of the
    deleted class alone would be normalised with its own, and the model could tell the two apart by that.

    Args:
        model: Returns logits `[n, K]`.
        first: Inputs `[n, ...]`, for instance of retained records.
        second: Inputs `[m, ...]`, for instance of records to forget.

    Returns:
        The logits of the first, `[n, K]`, and of the second, `[m, K]`.
    """
    logits = model(behaviour_of(model).join(first, second))
    return logits[: len(first)], logits[len(first) :]
