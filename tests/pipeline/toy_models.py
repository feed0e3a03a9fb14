"""Small models that a configuration can name; every one of them has a fault."""

import torch
from torch import nn

from retrace_pl.models import DCGAN, ImageClassifier


class _Toy(ImageClassifier):
    def __init__(self, in_channels, num_classes, size=256):
        super().__init__(in_channels, num_classes, num_features=size)
        self.scale = nn.Parameter(torch.ones(1))
        self.reset_parameters()

    def embed(self, inputs):
        return self.scale * inputs.flatten(1)


class OneTooMany(_Toy):
    """Returns a logit more than there are classes."""

    def forward(self, inputs):
        logits = super().forward(inputs)
        return torch.cat([logits, logits[:, :1]], 1)


class Flat(_Toy):
    """Returns one number a record."""

    def forward(self, inputs):
        return super().forward(inputs).sum(1)


class ForSixteen(_Toy):
    """Reads images of 16 pixels a side and no others."""


class Constant(_Toy):
    """Returns the same logits whatever it is shown."""

    def forward(self, inputs):
        return super().forward(0 * inputs)


class HalfSize(DCGAN):
    """Makes images of half the size."""

    def forward(self, latents):
        return super().forward(latents)[..., ::2, ::2]
