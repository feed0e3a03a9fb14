"""Any of torchvision's classification models as a classifier of this package."""

from __future__ import annotations

import difflib
from typing import Any
from urllib.error import URLError

import torch
import torchvision.models as zoo
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError, RunError
from retrace_pl.models.base import ImageClassifier

AUXILIARY_HEADS = ("googlenet", "inception_v3")
FIXED_SIZE = ("maxvit", "vit_")


class TorchvisionClassifier(ImageClassifier):
    """Any torchvision classification model by name, optionally pretrained.

    The first convolution is adapted to the channels of the images (pretrained weights are averaged over the colours),
    and the last linear layer is replaced by a new one; the features are its input. Parameters start as torchvision
    draws them. With pretrained weights give ImageNet's `mean` [0.485, 0.456, 0.406] and `std` [0.229, 0.224, 0.225].

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        name: Name in torchvision.models, such as `resnet34`.
        weights: Name of pretrained weights, such as `DEFAULT` or `IMAGENET1K_V1`; absent: random ones.
        resize: Side in pixels to which images are scaled first, bilinearly; absent: images stay as they are. Vision
            transformers take one size alone, mostly 224.
        mean: Mean subtracted from the [0, 1] pixels, one value or one per channel.
        std: Standard deviation the pixels are divided by, one value or one per channel.

    Raises:
        InputError: An unknown name or weights, a model without a linear last layer, or images it cannot take.
        RunError: The weights cannot be downloaded.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        name: str = "resnet34",
        weights: str | None = None,
        *,
        resize: int | None = None,
        mean: float | list[float] = 0.5,
        std: float | list[float] = 0.5,
    ) -> None:
        network = _build(name, weights)
        last, linear = _last_linear(network, name)
        smallest = max(zoo.get_model_weights(name).DEFAULT.meta.get("min_size", (1, 1)))
        super().__init__(
            in_channels,
            num_classes,
            linear.in_features,
            mean=mean,
            std=std,
            min_size=1 if resize else smallest,
        )
        self.size_hint = f"set resize to {smallest} or more"
        self.name = name
        self.resize = resize
        exact = getattr(network, "image_size", smallest) if name.startswith(FIXED_SIZE) else None
        self.exact_size = exact
        if resize is not None and (resize != exact if exact else resize < smallest):
            raise InputError(
                f"resize must be {f'{exact}' if exact else f'at least {smallest}'} for {name}, got {resize}"
            )
        network.set_submodule(last, nn.Identity())
        _adapt_channels(network, name, in_channels, keep=weights is not None)
        self.body = network
        nn.init.kaiming_normal_(self.head.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)

    def embed(self, inputs: Tensor) -> Tensor:
        """Map normalised images [n, C, H, W] to features [n, F]."""
        if self.resize is not None:
            size = (self.resize, self.resize)
            inputs = functional.interpolate(inputs, size, mode="bilinear", align_corners=False, antialias=True)
        elif self.exact_size is not None and tuple(inputs.shape[2:]) != (self.exact_size, self.exact_size):
            raise InputError(
                f"{self.name} takes images of {self.exact_size}x{self.exact_size} pixels alone, got "
                f"{inputs.shape[2]}x{inputs.shape[3]}: set resize to {self.exact_size}"
            )
        return torch.as_tensor(self.body(inputs))


def _build(name: str, weights: str | None) -> nn.Module:
    known = zoo.list_models(module=zoo)
    if name not in known:
        close = difflib.get_close_matches(name.lower(), known, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"known are {', '.join(known[:3])}, ..., {known[-1]}"
        raise InputError(f"name: torchvision has no classification model {name!r}; {hint}")
    options: dict[str, Any] = {}
    if weights is not None:
        choices = [choice.name for choice in zoo.get_model_weights(name)]
        if weights not in ("DEFAULT", *choices):
            raise InputError(f"weights: {name} has no weights {weights!r}; choose DEFAULT or {', '.join(choices)}")
    elif name in AUXILIARY_HEADS:
        options = {"aux_logits": False, "init_weights": False}
    try:
        network: nn.Module = zoo.get_model(name, weights=weights, **options)
    except (URLError, OSError) as error:
        raise RunError(f"weights: {weights} of {name} could not be downloaded: {error}") from error
    if name in AUXILIARY_HEADS:
        for attribute, off in (("aux_logits", False), ("aux1", None), ("aux2", None), ("AuxLogits", None)):
            if hasattr(network, attribute):
                setattr(network, attribute, off)
    return network


def _last_linear(network: nn.Module, name: str) -> tuple[str, nn.Linear]:
    layers = list(network.named_modules())
    path, layer = layers[-1]
    if not isinstance(layer, nn.Linear):
        raise InputError(f"name: {name} does not end in a linear layer; choose another torchvision model")
    return path, layer


def _adapt_channels(network: nn.Module, name: str, channels: int, *, keep: bool) -> None:
    switch = "transform_input"  # of the Inception family: assumes three channels, and this class normalises already
    if hasattr(network, switch):
        setattr(network, switch, False)
    if channels == 3:
        return
    path, old = next((path, layer) for path, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    with torch.no_grad():
        if keep:
            new.weight.copy_(old.weight.mean(dim=1, keepdim=True).expand_as(new.weight) * 3 / channels)
        else:
            nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    network.set_submodule(path, new)
