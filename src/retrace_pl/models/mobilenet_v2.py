"""MobileNetV2 with the strides that 32x32 images need."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from retrace_pl.models.base import ImageClassifier


class MobileNetV2(ImageClassifier):
    """MobileNetV2 for 32x32 images: stride 1 in the stem and the first strided stage; 1280 features (MLS-Bench).

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        mean: Mean subtracted from the [0, 1] pixels, one value or one per channel.
        std: Standard deviation the pixels are divided by, one value or one per channel.

    Raises:
        InputError: A setting out of range, or images under 8x8 pixels.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        mean: float | list[float] = 0.5,
        std: float | list[float] = 0.5,
    ) -> None:
        super().__init__(in_channels, num_classes, 1280, mean=mean, std=std, min_size=8)
        settings = [  # expansion, channels, blocks, stride; the original's second stage has stride 2
            [1, 16, 1, 1],
            [6, 24, 2, 1],
            [6, 32, 3, 2],
            [6, 64, 4, 2],
            [6, 96, 3, 1],
            [6, 160, 3, 2],
            [6, 320, 1, 1],
        ]
        self.body = mobilenet_v2(weights=None, inverted_residual_setting=settings).features
        self.body[0][0] = nn.Conv2d(in_channels, 32, 3, padding=1, bias=False)
        self.reset_parameters()

    def embed(self, inputs: Tensor) -> Tensor:
        """Map normalised images [n, C, H, W] to features [n, 1280]."""
        return torch.as_tensor(self.body(inputs)).mean(dim=(2, 3))
