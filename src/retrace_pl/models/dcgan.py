"""Deep convolutional GAN for small images (Radford et al., 2016) with a spectral-norm discriminator."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from retrace_pl.errors import InputError
from retrace_pl.models.base import AdversarialGenerator

SIZES = (8, 16, 32, 64, 128)


class DCGAN(AdversarialGenerator):
    """Deep convolutional generator for square images of 16 or 32 pixels (also 8, 64 and 128).

    A linear layer makes 4x4 maps; transposed convolutions with batch normalisation double them up to the image size.

    Args:
        output_shape: Shape (channels, size, size) of an image.
        latent_dim: Dimension of the latent space.
        width: Channels at half the image size; every halving below has twice as many.
        discriminator_width: Channels of the discriminator at half the image size; `width` when absent.
        output: Last non-linearity: `tanh`, mapped to [0, 1], or `sigmoid`.

    Raises:
        InputError: A shape that is not (channels, size, size) with a size named above, or a setting out of range.
    """

    def __init__(
        self,
        output_shape: tuple[int, ...],
        *,
        latent_dim: int = 64,
        width: int = 32,
        discriminator_width: int | None = None,
        output: Literal["tanh", "sigmoid"] = "tanh",
    ) -> None:
        super().__init__()
        shape = tuple(output_shape)
        if len(shape) != 3 or shape[1] != shape[2] or shape[1] not in SIZES or shape[0] < 1:
            raise InputError(f"DCGAN makes square images of {SIZES} pixels, got {shape}: set the data's image_size")
        if latent_dim < 1 or width < 1 or (discriminator_width is not None and discriminator_width < 1):
            raise InputError("latent_dim, width and discriminator_width of DCGAN must be at least 1")
        self.output_shape = shape
        self.latent_dim = latent_dim
        self.output = output
        self.discriminator_width = discriminator_width or width
        stages = int(math.log2(shape[1] // 4))
        channels = width * 2 ** (stages - 1)
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, channels * 16, bias=False),
            nn.Unflatten(1, (channels, 4, 4)),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
        for _ in range(stages - 1):
            layers += [
                nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(channels // 2),
                nn.ReLU(),
            ]
            channels //= 2
        layers.append(nn.ConvTranspose2d(channels, shape[0], 4, stride=2, padding=1))
        self.body = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents [n, d] to images [n, C, S, S] with pixels in [0, 1]."""
        images: Tensor = self.body(latents)
        return torch.sigmoid(images) if self.output == "sigmoid" else 0.5 + 0.5 * torch.tanh(images)

    def build_discriminator(self) -> Discriminator:
        """Return a new spectral-norm discriminator for this generator's images."""
        return Discriminator(self.output_shape, width=self.discriminator_width)


class Discriminator(nn.Module):
    """Spectral-norm discriminator: strided convolutions down to 4x4 maps, batch spread, one linear layer.

    The mean spread of the last maps over the batch enters as one more feature (Karras et al., 2018), so that a
    generator without diversity is found out.

    Args:
        shape: Shape (channels, size, size) of an image.
        width: Channels at half the image size; every halving below has twice as many.
    """

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, outputs = shape[0], width
        for _ in range(int(math.log2(shape[1] // 4))):
            layers += [spectral_norm(nn.Conv2d(channels, outputs, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
            channels, outputs = outputs, outputs * 2
        self.body = nn.Sequential(*layers)
        self.head = spectral_norm(nn.Linear(channels * 16 + 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map images [n, C, S, S] with pixels in [0, 1] to realness logits [n]."""
        maps = self.body(2 * images - 1).flatten(1)
        spread = ((maps - maps.mean(dim=0)).square().mean(dim=0) + 1e-8).sqrt().mean()
        maps = torch.cat([maps, spread.expand(len(maps), 1)], dim=1)
        return torch.as_tensor(self.head(maps)).squeeze(1)
