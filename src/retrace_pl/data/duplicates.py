"""Copies: records with the same pixels under different positions."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import torch

from retrace_pl.data.tensors import LabelledTensors


def drop_copies(splits: Mapping[str, LabelledTensors]) -> tuple[dict[str, LabelledTensors], dict[str, int]]:
    """Keep every image in one split only: the first, in the order given, that holds it.

    Images are compared byte by byte (through a 128-bit hash) as the models see them, after resizing, and whatever their
    labels. Copies within one split stay.

    Args:
        splits: The splits, those that must stay complete first.

    Returns:
        The splits without the copies of earlier ones, and how many each lost.
    """
    seen: set[bytes] = set()
    kept: dict[str, LabelledTensors] = {}
    dropped: dict[str, int] = {}
    for name, tensors in splits.items():
        prints = [blake2b(image.tobytes(), digest_size=16).digest() for image in tensors.pixels.numpy()]
        fresh = torch.tensor([fingerprint not in seen for fingerprint in prints], dtype=torch.bool)
        dropped[name] = len(tensors) - int(fresh.sum())
        kept[name] = tensors.subset(fresh) if dropped[name] else tensors
        seen.update(prints)
    return kept, dropped
