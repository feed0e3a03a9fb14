"""Around a foreign model of images: the preprocessing it was trained with before it, one form of output behind it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.external.inputs import Material, ModelInputs
from retrace_pl.external.outputs import OutputKind, as_logits, check_kind

if TYPE_CHECKING:
    from retrace_pl.external.config import PairSettings

__all__ = ["ImageInput", "PreparedModel", "Preprocess"]


@dataclass(frozen=True)
class ImageInput(ModelInputs):
    """The images that a model takes, as far as it is known; None where it is not.

    Args:
        image_size: Side S of the square images in pixels.
        channels: 1 or 3.
        mean: Mean that is subtracted, one value or one for each channel, in the units of `input_range`.
        std: Standard deviation that is divided by, likewise.
        input_range: What black and white are before the mean is subtracted: (0, 1), (-1, 1) or (0, 255).
    """

    noun: ClassVar[str] = "images"

    image_size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_range: tuple[float, float] | None = None

    def completed(self, hint: ImageInput) -> ImageInput:
        """These values, and those of `hint` where there is none."""
        missing = {name: getattr(hint, name) for name in _names(self) if getattr(self, name) is None}
        return replace(self, **missing)

    def options(self) -> dict[str, Any]:
        """The known values by the name of their command-line option."""
        names = {name: f"--{name.replace('_', '-')}" for name in _names(self)}
        return {option: getattr(self, name) for name, option in names.items() if getattr(self, name) is not None}

    def material(self, settings: PairSettings) -> Material:
        """Images of that kind."""
        from retrace_pl.external.images import ImageMaterial

        if settings.generator_pretrained is not None:
            raise InputError("--generator-pretrained: it makes texts, and the models take images; leave it out")
        return ImageMaterial(self, settings.generator_size)


class Preprocess(nn.Module):
    """Turns candidates, images in [0, 1], into what a model was trained on: resized, put in range, standardised.

    Differentiable, so that white-box access reaches through it.

    Args:
        settings: The declared preprocessing; `image_size` and `channels` must be known.

    Raises:
        InputError: A value is missing, out of range or does not fit the others; the message names the option.
    """

    def __init__(self, settings: ImageInput) -> None:
        super().__init__()
        size, channels = settings.image_size, settings.channels
        if size is None or channels is None:
            option = "--image-size" if size is None else "--channels"
            raise InputError(f"{option} is not told by the model's file; give what the models were trained on")
        if size < 4:
            raise InputError(f"--image-size: {size} is below 4 pixels")
        if channels not in (1, 3):
            raise InputError(f"--channels: {channels} is neither 1 (greyscale) nor 3 (colour)")
        self.image_size = size
        self.channels = channels
        self.low, self.high = settings.input_range or (0.0, 1.0)
        if not self.low < self.high:
            raise InputError(f"--input-range: {self.low:g},{self.high:g} is no range; the first value is the smaller")
        mean, std = settings.mean or (0.0,), settings.std or (1.0,)
        self._check(mean, std)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def _check(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        for option, values in (("--mean", mean), ("--std", std)):
            if len(values) not in (1, self.channels):
                raise InputError(f"{option}: {len(values)} values for {self.channels} channels; give one, or one each")
        if not all(self.low <= value <= self.high for value in mean):
            raise InputError(
                f"--mean: {_text(mean)} lies outside the input range {self.low:g} to {self.high:g}; "
                "mean and std are in the units of --input-range"
            )
        if not all(0 < value <= self.high - self.low for value in std if value != 1.0) or min(std) <= 0:
            raise InputError(
                f"--std: {_text(std)} does not fit the input range {self.low:g} to {self.high:g}; "
                "mean and std are in the units of --input-range"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Map images [n, C, H, W] in [0, 1] to model inputs [n, C, S, S].

        Raises:
            InputError: The images have another number of channels.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise InputError(f"--channels: the models take {self.channels}, the images are {list(images.shape)}")
        size = (self.image_size, self.image_size)
        if tuple(images.shape[2:]) != size:
            images = functional.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        scaled = self.low + (self.high - self.low) * images
        return (scaled - self.mean.to(images.dtype)) / self.std.to(images.dtype)


class PreparedModel(nn.Module):
    """A foreign model with its preprocessing; its outputs are class scores whose softmax are the probabilities.

    So every foreign model looks like a classifier of this package, whatever its file says; see `as_logits`.

    Args:
        model: The model, in eval mode.
        preprocess: What comes before it.
        kind: What it returns.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess, kind: OutputKind) -> None:
        super().__init__()
        check_kind(kind)
        self.model = model
        self.preprocess = preprocess
        self.kind: OutputKind = kind

    def forward(self, images: Tensor) -> Tensor:
        """Map images [n, C, H, W] in [0, 1] to logits or log-probabilities [n, K]."""
        return as_logits(self.model(self.preprocess(images)), self.kind)


def _names(inputs: ImageInput) -> list[str]:
    return [field.name for field in fields(inputs)]


def _text(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
