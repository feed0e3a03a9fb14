"""Wrong labels for the records to forget."""

from __future__ import annotations

import torch
from torch import Tensor

from retrace_pl.errors import InputError


def redrawn_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Draws another class for every record, uniformly, from torch's global generator.

    Args:
        labels: Classes `[n]`, int64.
        num_classes: Number K of classes, 2 or more.

    Returns:
        Classes `[n]`, each different from the one given.

    Raises:
        InputError: There is only one class.
    """
    _require_two(num_classes)
    # drawn on the CPU, so that the labels do not depend on the device
    offsets = torch.randint(1, num_classes, labels.shape).to(labels.device)
    return (labels + offsets) % num_classes


def fixed_labels(inputs: Tensor, labels: Tensor, num_classes: int, seed: int) -> Tensor:
    """Gives every record another class, the same whenever it is asked for.

    Batches do not say which records they hold, so the class is drawn from the record itself: a hash of the bits of its
    input, with coefficients drawn from the seed, chooses among the other classes. Equal inputs with equal labels get
    equal classes, and an augmented view counts as a record of its own.

    Args:
        inputs: `[n, ...]`, of any type; of records that may come padded, `Behaviour.words`.
        labels: Classes `[n]`, int64.
        num_classes: Number K of classes, 2 or more.
        seed: Other seeds give unrelated classes.

    Returns:
        Classes `[n]`, each different from the one given.

    Raises:
        InputError: There is only one class.
    """
    _require_two(num_classes)
    flat = inputs.detach().flatten(1)
    words = flat.float().contiguous().view(torch.int32).long() if flat.is_floating_point() else flat.long()
    generator = torch.Generator().manual_seed(seed)
    coefficients = torch.randint(-(2**62), 2**62, (words.shape[1],), generator=generator).to(words.device)
    # Products and sums wrap at 64 bits, to the same number in any order of summation. Pixels have many trailing zeros,
    # so the low bits of such a hash are poor; hence the shift.
    hashed = (words * coefficients).sum(1)
    offsets = 1 + ((hashed >> 33) & 0x3FFFFFFF) % (num_classes - 1)
    return (labels + offsets) % num_classes


def _require_two(num_classes: int) -> None:
    if num_classes < 2:
        raise InputError("random labels need a model with two classes or more; this one has one.")
