"""A convolutional network small enough for audits on a laptop's CPU."""

from __future__ import annotations

from torch import Tensor, nn

from retrace_pl.models.base import ImageClassifier


class SmallCNN(ImageClassifier):
    """Three convolutions with batch normalisation, for small images on a CPU.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        width: Channels of the first convolution; the next ones have 2 and 4 times as many. Features: 4 * width.
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
        width: int = 32,
        mean: float | list[float] = 0.5,
        std: float | list[float] = 0.5,
    ) -> None:
        super().__init__(in_channels, num_classes, 4 * width, mean=mean, std=std, min_size=8)
        self.body = nn.Sequential(
            *_block(in_channels, width),
            nn.MaxPool2d(2),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            *_block(2 * width, 4 * width),
        )
        self.reset_parameters()

    def embed(self, inputs: Tensor) -> Tensor:
        """Map normalised images [n, C, H, W] to features [n, 4 * width]."""
        maps: Tensor = self.body(inputs)
        return maps.mean(dim=(2, 3))


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
