"""VGG-16 with batch normalisation for 32x32 images."""

from __future__ import annotations

from torch import Tensor, nn

from retrace_pl.errors import InputError
from retrace_pl.models.base import ImageClassifier

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16BN(ImageClassifier):
    """VGG-16 with batch normalisation for 32x32 images: 13 convolutions, 3 linear layers, 512 features (MLS-Bench).

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        dropout: Probability with which the two hidden linear layers drop a unit in training, in [0, 1).
        mean: Mean subtracted from the [0, 1] pixels, one value or one per channel.
        std: Standard deviation the pixels are divided by, one value or one per channel.

    Raises:
        InputError: A setting out of range, or images under 32x32 pixels.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dropout: float = 0.5,
        mean: float | list[float] = 0.5,
        std: float | list[float] = 0.5,
    ) -> None:
        super().__init__(in_channels, num_classes, 512, mean=mean, std=std, min_size=32)
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must lie in [0, 1), got {dropout}")
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in STAGES:
            for outputs in stage:
                layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
                channels = outputs
            layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers)
        self.hidden = nn.Sequential(
            nn.Linear(512, 512), nn.ReLU(), nn.Dropout(dropout), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(dropout)
        )
        self.reset_parameters()

    def embed(self, inputs: Tensor) -> Tensor:
        """Map normalised images [n, C, H, W] to features [n, 512]."""
        hidden: Tensor = self.hidden(self.body(inputs).mean(dim=(2, 3)))
        return hidden
