"""What every generator of texts offers: a decoder with a likelihood, and the encoder that its latents come from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from retrace_pl.errors import InputError
from retrace_pl.models.base import Generator
from retrace_pl.models.latent_semantics import LatentSemanticEncoder

__all__ = ["GuidedGenerator", "TextGenerator", "target_mask", "text_mask"]


@runtime_checkable
class GuidedGenerator(Protocol):
    """A generator that builds its samples step by step and lets others have a say in every step.

    Attributes:
        latent_dim: Dimension d of the latent space.
        guided_steps: Steps of the longest sample.
    """

    latent_dim: int

    @property
    def guided_steps(self) -> int:
        """Steps of the longest sample."""
        ...

    def guided(self, latents: Tensor, rank: Callable[[Tensor, Tensor], Tensor], candidates: int) -> Tensor:
        """Map latents [n, d] to samples [n, *output_shape], every step being the best under log-probability plus rank.

        Args:
            latents: z.
            rank: Samples [m, *output_shape] as they would be if they ended after the step, and the numbers [m] of the
                latents they belong to, to what is added to the step's log-probability, [m].
            candidates: How many likeliest continuations of a sample are ranked in a step.
        """
        ...


class TextGenerator(Generator):
    """A decoder p(x | z) of texts x, z ~ N(0, I); a fixed encoder gives the latents of the texts it is trained on.

    Its samples are token ids [n, L], int64, in the vocabulary of the data, padded on the right. The same latent always
    gives the same text. Inside it may speak a vocabulary of its own, which `tokens` translates the data's into.

    Attributes:
        encoder: From own ids to latents; part of the weights.
        pad_id: Id of the padding in the data's vocabulary.
        own_end: Id that ends a text in the generator's own vocabulary.
    """

    training_task: ClassVar[str] = "retrace_pl.tasks.TextGeneratorTask"

    encoder: LatentSemanticEncoder
    pad_id: int
    own_end: int

    def fit_encoder(self, inputs: Tensor) -> None:
        """Fit the encoder on texts, token ids [n, L] of the data.

        Raises:
            InputError: They are too few for `latent_dim` dimensions.
        """
        tokens = self.tokens(inputs)
        self.encoder.fit(tokens, text_mask(tokens, self.own_end))

    def encode(self, inputs: Tensor) -> Tensor:
        """Map texts, token ids [n, L] of the data, to the latents [n, d] that say what they are about.

        Raises:
            InputError: The encoder was not fitted.
        """
        return self.encode_own(self.tokens(inputs))

    def encode_own(self, tokens: Tensor) -> Tensor:
        """The same for own ids [n, T], as `tokens` gives them."""
        return torch.as_tensor(self.encoder(tokens, text_mask(tokens, self.own_end)))

    @abstractmethod
    def tokens(self, inputs: Tensor) -> Tensor:
        """Translate ids of the data [n, L] into own ids [n, T]: a first token, the text, `own_end`, then anything."""

    @abstractmethod
    def losses(self, latents: Tensor, tokens: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return -log p(x | z) of every text, [n], in nats, and the number of tokens it is the sum of, [n].

        Args:
            latents: z [n, d].
            tokens: Own ids [n, T].
            kept: Which tokens [n, T] the decoder is shown as its history (word dropout); all of them when absent. They
                are predicted all the same.
        """

    def points(self, samples: Tensor) -> Tensor:
        """Map token ids [n, L] to their counts of tokens, scaled to length 1: [n, number of different tokens]."""
        known, places = torch.unique(samples, return_inverse=True)
        counts = torch.zeros(len(samples), len(known), device=samples.device)
        counts.scatter_add_(1, places, samples.ne(self.pad_id).to(counts.dtype))
        return torch.as_tensor(counts / counts.norm(dim=1, keepdim=True).clamp_min(1.0))


def target_mask(tokens: Tensor, end: int) -> Tensor:
    """Which tokens [n, T] a decoder predicts: those after the first one, up to the first `end` after it."""
    ends = tokens[:, 1:].eq(end).int()
    before = ends.cumsum(1) - ends
    return torch.cat([torch.zeros_like(tokens[:, :1], dtype=torch.bool), before.eq(0)], dim=1)


def text_mask(tokens: Tensor, end: int) -> Tensor:
    """Which tokens [n, T] are text: those after the first one and before the first `end` after it."""
    return target_mask(tokens, end) & tokens.ne(end)


def check_sample_space(owner: str, space: tuple[int, ...]) -> tuple[int, int]:
    """Return (longest text in tokens, size of the vocabulary), if that is what the sample space is.

    Raises:
        InputError: It is that of images.
    """
    if len(space) != 2 or space[0] < 4 or space[1] < 5:
        raise InputError(
            f"{owner} makes texts and takes the sample space (longest text in tokens, vocabulary), got {tuple(space)}: "
            "choose a text data set, or a generator of images"
        )
    return int(space[0]), int(space[1])
