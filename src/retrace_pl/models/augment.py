"""Differentiable augmentation of real and generated images (Zhao et al., 2020), for GANs on few images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError


class DifferentiableAugmentation(nn.Module):
    """Random shifts and cut-outs that a generator's gradient passes through.

    The discriminator sees real and generated images only through it, so that it cannot memorise a small set, while the
    generator still learns the images as they are.

    Args:
        translate: Largest shift in either direction, as a fraction of the side in [0, 1]; zeros fill the rest.
        cutout: Side of the square set to zero, as a fraction of the image's side in [0, 1].

    Raises:
        InputError: A fraction out of range.
    """

    def __init__(self, translate: float = 0.125, cutout: float = 0.0) -> None:
        super().__init__()
        if not (0 <= translate <= 1 and 0 <= cutout <= 1):
            raise InputError(f"translate and cutout must lie in [0, 1], got {translate} and {cutout}")
        self.translate = translate
        self.cutout = cutout

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return images [n, C, H, W], each shifted and cut by amounts of its own.

        Args:
            images: Images [n, C, H, W].
            generator: CPU random generator to draw from; torch's global one when absent.
        """
        if self.translate:
            images = self._translate(images, generator)
        if self.cutout:
            images = self._cut(images, generator)
        return images

    def _translate(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        n, channels, height, width = images.shape
        up, left = round(self.translate * height), round(self.translate * width)
        rows = _draw(2 * up + 1, n, generator, images) + torch.arange(height, device=images.device)
        columns = _draw(2 * left + 1, n, generator, images) + torch.arange(width, device=images.device)
        padded = functional.pad(images, (left, left, up, up))
        places = (rows[:, :, None] * (width + 2 * left) + columns[:, None, :]).view(n, 1, -1).expand(-1, channels, -1)
        return padded.flatten(2).gather(2, places).view_as(images)

    def _cut(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        n, _, height, width = images.shape
        tall, wide = round(self.cutout * height), round(self.cutout * width)
        rows = torch.arange(height, device=images.device) - _draw(height - tall + 1, n, generator, images)
        columns = torch.arange(width, device=images.device) - _draw(width - wide + 1, n, generator, images)
        inside = ((rows >= 0) & (rows < tall))[:, None, :, None] & ((columns >= 0) & (columns < wide))[:, None, None, :]
        return images.masked_fill(inside, 0.0)


def _draw(high: int, n: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
    return torch.randint(0, high, (n, 1), generator=generator).to(like.device)
