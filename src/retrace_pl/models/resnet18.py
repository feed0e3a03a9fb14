"""ResNet-18 with the stem that 32x32 images need."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from retrace_pl.models.base import ImageClassifier


class ResNet18(ImageClassifier):
    """ResNet-18 for 32x32 images: a 3x3 stem of stride 1 and no pooling before the stages; 512 features.

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
        super().__init__(in_channels, num_classes, 512, mean=mean, std=std, min_size=8)
        body = resnet18(weights=None)
        body.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        body.maxpool = nn.Identity()
        body.fc = nn.Identity()
        self.body = body
        self.reset_parameters()

    def embed(self, inputs: Tensor) -> Tensor:
        """Map normalised images [n, C, H, W] to features [n, 512]."""
        return torch.as_tensor(self.body(inputs))
