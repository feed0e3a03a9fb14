"""Residual networks of depth 6n + 2 for small images (He et al., 2016, section 4.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.models.base import ImageClassifier


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Stride of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [n, inputs, H, W] to [n, outputs, H / stride, W / stride]."""
        hidden = functional.relu(self.norm1(self.conv1(inputs)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


class ResNetCIFAR(ImageClassifier):
    """Residual network of depth 6n + 2 for images of about 32x32 pixels (He et al., 2016).

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        depth: 6n + 2 layers; 8 is small enough for audits on a CPU.
        width: Channels of the first stage; the next ones have 2 and 4 times as many. Features: 4 * width.
        mean: Mean subtracted from the [0, 1] pixels, one value or one per channel.
        std: Standard deviation the pixels are divided by, one value or one per channel.

    Raises:
        InputError: The depth is not 6n + 2, another setting is out of range, or the images are under 8x8 pixels.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        depth: int = 8,
        width: int = 16,
        mean: float | list[float] = 0.5,
        std: float | list[float] = 0.5,
    ) -> None:
        super().__init__(in_channels, num_classes, 4 * width, mean=mean, std=std, min_size=8)
        if depth < 8 or (depth - 2) % 6:
            raise InputError(f"depth must be 8, 14, 20, ... (6n + 2), got {depth}")
        blocks = (depth - 2) // 6
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
        for stage in range(3):
            for block in range(blocks):
                outputs = width * 2**stage
                layers.append(BasicBlock(channels, outputs, stride=2 if stage and not block else 1))
                channels = outputs
        self.body = nn.Sequential(*layers)
        self.reset_parameters()

    def embed(self, inputs: Tensor) -> Tensor:
        """Map normalised images [n, C, H, W] to features [n, 4 * width]."""
        maps: Tensor = self.body(inputs)
        return maps.mean(dim=(2, 3))


class ResNet20(ResNetCIFAR):
    """ResNet-20 for images of about 32x32 pixels: 0.27 million parameters (He et al., 2016; MLS-Bench).

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
        super().__init__(in_channels, num_classes, depth=20, width=16, mean=mean, std=std)
