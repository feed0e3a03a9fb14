"""Training augmentations on whole batches, random only through the generator they are given."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Augmentation = Literal["none", "crop", "crop_flip"]


def augment(pixels: Tensor, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """Apply an augmentation to a batch.

    Args:
        pixels: [n, C, S, S], any type.
        kind: ``none``; ``crop`` (pad by S/8 zeros, 4 at 32x32, and crop back at a random place); ``crop_flip`` (the
            same, then mirrored left to right with probability one half).
        generator: CPU generator; the same state gives the same batch.

    Returns:
        A tensor of the same shape and type.
    """
    if kind == "none":
        return pixels
    pixels = random_crop(pixels, max(1, round(pixels.shape[-1] / 8)), generator)
    if kind == "crop_flip":
        mirrored = torch.rand(len(pixels), generator=generator) < 0.5
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
    return pixels


def random_crop(pixels: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad with zeros and crop every image back to its size at its own random offset.

    Args:
        pixels: [n, C, H, W].
        padding: Zeros on each side, in pixels; offsets are uniform on 0 to ``2 * padding``.
        generator: CPU generator.

    Returns:
        [n, C, H, W].
    """
    count, _, height, width = pixels.shape
    padded = functional.pad(pixels, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [n, C, offsets, offsets, H, W], a view
    return windows[torch.arange(count), :, top, left]
