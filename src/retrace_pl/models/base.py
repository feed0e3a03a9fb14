"""What every classifier and every generator offers to the rest of the package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from retrace_pl.errors import InputError
from retrace_pl.models.behaviour import Behaviour, ClassifierBehaviour
from retrace_pl.models.init import initialise


class Classifier(nn.Module, ABC):
    """A network that ends in class logits and shows the features before them.

    Attributes:
        num_features: Width F of the feature space.
        num_classes: Number K of classes.
    """

    num_features: int
    num_classes: int

    @property
    def behaviour(self) -> Behaviour:
        """How two models of this kind are compared; that of classifiers over one floating-point tensor by default."""
        return ClassifierBehaviour()

    @abstractmethod
    def features(self, inputs: Tensor) -> Tensor:
        """Map inputs [n, ...] to the features [n, F] that the last linear layer reads."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs [n, ...] to logits [n, K]."""


class ImageClassifier(Classifier):
    """Base of the image classifiers: checks and normalises [0, 1] images, then features, then one linear layer.

    A subclass builds its body and implements `embed`; it ends its constructor with `self.reset_parameters()`.

    Args:
        in_channels: Channels C of the images.
        num_classes: Number K of classes.
        num_features: Width F of what `embed` returns.
        mean: Mean subtracted from the pixels, one value or one per channel.
        std: Standard deviation the pixels are divided by, one value or one per channel.
        min_size: Smallest height and width in pixels that the body can take.

    Raises:
        InputError: A size, mean or std that cannot be used.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_features: int,
        *,
        mean: float | list[float] = 0.5,
        std: float | list[float] = 0.5,
        min_size: int = 1,
    ) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise InputError(f"in_channels and num_classes must be at least 1, got {in_channels} and {num_classes}")
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.num_features = num_features
        self.min_size = min_size
        self.size_hint = "raise the data's image_size or choose a smaller model"
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", _per_channel("mean", mean, in_channels))
        self.register_buffer("std", _per_channel("std", std, in_channels))
        if not bool((self.std > 0).all()):
            raise InputError(f"std must be positive, got {std}")
        self.head = nn.Linear(num_features, num_classes)

    @abstractmethod
    def embed(self, inputs: Tensor) -> Tensor:
        """Map normalised images [n, C, H, W] to features [n, F]."""

    def features(self, inputs: Tensor) -> Tensor:
        """Map images [n, C, H, W] with pixels in [0, 1] to features [n, F].

        Raises:
            InputError: The images have another channel count or are too small for this architecture.
        """
        self._check(inputs)
        return self.embed((inputs - self.mean) / self.std)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images [n, C, H, W] with pixels in [0, 1] to logits [n, K].

        Raises:
            InputError: The images have another channel count or are too small for this architecture.
        """
        return torch.as_tensor(self.head(self.features(inputs)))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew (`initialise`), from `generator` or else from torch's global one."""
        initialise(self, generator)

    def _check(self, inputs: Tensor) -> None:
        name = type(self).__name__
        if inputs.ndim != 4 or inputs.shape[1] != self.in_channels:
            raise InputError(
                f"{name} was built for images [n, {self.in_channels}, H, W], got {list(inputs.shape)}: "
                "set in_channels to the data's channels"
            )
        if min(inputs.shape[2:]) < self.min_size:
            raise InputError(
                f"{name} needs images of at least {self.min_size}x{self.min_size} pixels, got "
                f"{inputs.shape[2]}x{inputs.shape[3]}: {self.size_hint}"
            )


class Generator(nn.Module, ABC):
    """A network that turns latents from N(0, I) into samples of the data's shape.

    Attributes:
        latent_dim: Dimension d of the latent space.
        output_shape: Shape of one sample, without the batch dimension.
    """

    training_task: ClassVar[str] = "retrace_pl.tasks.GeneratorTask"
    """Import path of the Lightning task that trains generators of this kind, see `retrace_pl.tasks.generator_task`."""

    latent_dim: int
    output_shape: tuple[int, ...]

    @abstractmethod
    def forward(self, latents: Tensor) -> Tensor:
        """Map latents [n, d] to samples [n, *output_shape]; images have pixels in [0, 1]."""

    def points(self, samples: Tensor) -> Tensor:
        """Map samples [n, ...] to vectors [n, f] whose Euclidean distance says how much two samples differ.

        A selection of candidates that are to differ from each other goes by them. The samples themselves, flattened,
        by default; a generator whose samples are no continuous numbers says better.
        """
        return samples.flatten(1)

    def sample_latents(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n latents from N(0, I).

        Args:
            n: Number of latents.
            generator: CPU random generator to draw from; torch's global one when absent.
            device: Where the result lies; the CPU when absent. The values do not depend on it.

        Returns:
            Latents [n, d], float32.
        """
        return torch.randn(n, self.latent_dim, generator=generator).to(device)


class AdversarialGenerator(Generator):
    """A generator that knows the discriminator it is trained against; `GeneratorTask` trains it."""

    @abstractmethod
    def build_discriminator(self) -> nn.Module:
        """Return a new discriminator: samples [n, *output_shape] to realness logits [n]."""


def _per_channel(name: str, value: float | list[float], channels: int) -> Tensor:
    values = [float(value)] * channels if isinstance(value, int | float) else [float(v) for v in value]
    if len(values) == 1:
        values = values * channels
    if len(values) != channels:
        raise InputError(f"{name} has {len(values)} values for {channels} channels: give one, or one per channel")
    return torch.tensor(values, dtype=torch.float32).view(1, channels, 1, 1)
